package bundle

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"meibench/harness/results"
)

// predicateType names what the predicate of a statement holds.
const predicateType = "https://meibench.invalid/bundle/v1" // .invalid: there is nothing at this address, and there never will be

// object is a JSON object; encoding/json sorts its keys.
type object = map[string]any

func ref(id string) object { return object{"@id": id} }

// pretty is JSON that people can read.
func pretty(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	err := enc.Encode(v) // escapes <, > and &: readers may put it into a page
	return b.String(), err
}

// statement is an in-toto Statement v1 about SHA256SUMS and the h1. The spec
// heads the second digest dirHash and calls it dirHash1 in its example; readers
// take the one they know.
func statement(sums []byte, m *Manifest) (string, error) {
	sum := sha256.Sum256(sums)
	digest := hex.EncodeToString(sum[:])
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(hash1(sums), "h1:")); err != nil || hex.EncodeToString(raw) != digest {
		return "", fmt.Errorf("the h1 is not the digest of %s", SumsFile) // they are one by construction
	}
	return pretty(object{
		"_type": "https://in-toto.io/Statement/v1",
		"subject": []object{
			{"name": SumsFile, "digest": object{"sha256": digest}},
			{"name": m.Name, "digest": object{"dirHash": digest, "dirHash1": digest}},
		},
		"predicateType": predicateType,
		"predicate": object{"schema": m.Schema, "name": m.Name, "submitter": m.Submitter, "created": m.Created, "mode": m.Mode,
			"division": m.Division, "harness": m.Harness, "attempts": m.Attempts},
	})
}

// encoding is the media type of a file.
func encoding(name string) string {
	switch path.Ext(name) {
	case ".arrow":
		return "application/vnd.apache.arrow.file"
	case ".json":
		return "application/json"
	case ".md":
		return "text/markdown"
	case ".yaml", ".cff":
		return "application/yaml"
	}
	return "text/plain"
}

// about says in a line what a file of a bundle is.
func about(name string) string {
	switch path.Base(name) {
	case results.RequestsFile:
		return "one row per request: events, sizes, energy, quality, outcome"
	case results.SpansFile:
		return "one row per part of a request's time"
	case results.CellsFile:
		return "one row per run of a cell: identity, limits, metrics"
	case results.BenchFile:
		return "Go benchmark text, for benchstat"
	case results.ManifestFile:
		return "the machine, the program, the suite and its contracts"
	case planFile:
		return "what was to be run, as it was fixed before"
	case receiptFile:
		return "proof that the plan was in a log before the run"
	case hostFile:
		return "profile of the machine that ran"
	case SummaryFile:
		return "every number that may be published, derived from the rows"
	}
	return "part of the bundle"
}

// licenceID is where a licence of the SPDX list is described.
func licenceID(spdx string) string { return "https://spdx.org/licenses/" + spdx }

// crate is ro-crate-metadata.json: RO-Crate 1.1 with a Process Run Crate, one
// CreateAction per run.
func (p *page) crate() (string, error) {
	const spec, profile, program = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5", "#meibench"
	root := object{"@id": "./", "@type": "Dataset", "name": p.title(), "description": p.abstract(), "datePublished": p.m.Created,
		"license": ref(licenceID(p.m.Licence)), "conformsTo": ref(profile)}
	graph := []object{
		{"@id": CrateFile, "@type": "CreativeWork", "about": ref("./"), "conformsTo": ref(spec)},
		root,
		{"@id": profile, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
		{"@id": licenceID(p.m.Licence), "@type": "CreativeWork", "name": p.m.Licence, "identifier": licenceID(p.m.Licence)},
		{"@id": program, "@type": "SoftwareApplication", "name": "meibench", "softwareVersion": p.commit(), "description": "benchmark of language models at the mobile edge, built with " + p.m.Harness.Go},
	}
	if p.m.Submitter != "" {
		root["author"] = ref("#submitter")
		graph = append(graph, object{"@id": "#submitter", "@type": "Organization", "name": p.m.Submitter, "description": "as the signing key is called"})
	}
	var parts, actions []object
	for i, r := range p.m.Runs {
		var all, results, objects []object
		for _, f := range p.files {
			if path.Dir(f.Path) != r.Path {
				continue
			}
			all = append(all, ref(f.Path))
			switch path.Base(f.Path) {
			case planFile, hostFile:
				objects = append(objects, ref(f.Path))
			default:
				results = append(results, ref(f.Path))
			}
		}
		m := &p.runs[i].Set.Manifest
		id := "#run-" + path.Base(r.Path)
		action := object{"@id": id, "@type": "CreateAction", "name": "meibench run of " + r.Suite, "description": strings.Join(r.Command, " "), "instrument": ref(program),
			"result": results, "startTime": m.Started.UTC().Format(time.RFC3339), "actionStatus": ref("http://schema.org/CompletedActionStatus")}
		if len(objects) > 0 {
			action["object"] = objects
		}
		if m.Finished != nil {
			action["endTime"] = m.Finished.UTC().Format(time.RFC3339)
		}
		if p.m.Submitter != "" {
			action["agent"] = ref("#submitter")
		}
		graph = append(graph, object{"@id": r.Path + "/", "@type": "Dataset", "name": "run " + path.Base(r.Path), "description": r.Suite + " on " + r.System, "hasPart": all}, action)
		parts, actions = append(parts, ref(r.Path+"/")), append(actions, ref(id))
	}
	for _, f := range p.files {
		if !strings.Contains(f.Path, "/") {
			parts = append(parts, ref(f.Path))
		}
		graph = append(graph, object{"@id": f.Path, "@type": "File", "name": path.Base(f.Path), "description": about(f.Path),
			"encodingFormat": encoding(f.Path), "contentSize": fmt.Sprint(f.Bytes), "sha256": f.SHA256})
	}
	root["hasPart"], root["mentions"] = parts, actions
	return pretty(object{"@context": []any{spec + "/context", object{"sha256": "https://schema.org/sha256"}}, "@graph": graph})
}

// croissantContext is the context that the Croissant 1.0 specification gives.
func croissantContext() object {
	c := object{"@language": "en", "@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/", "sc": "https://schema.org/",
		"rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
		"data":     object{"@id": "cr:data", "@type": "@json"},
		"dataType": object{"@id": "cr:dataType", "@type": "@vocab"},
		"examples": object{"@id": "cr:examples", "@type": "@json"}}
	for _, term := range strings.Fields("citeAs column extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5 parentField path " +
		"recordSet references regex repeated replace separator source subField transform") {
		c[term] = "cr:" + term
	}
	return c
}

// croissant is croissant.json: Croissant 1.0, a record set per table with a
// field per column.
func (p *page) croissant() (string, error) {
	var distribution, sets []object
	for _, f := range p.files {
		distribution = append(distribution, object{"@type": "cr:FileObject", "@id": f.Path, "name": f.Path, "description": about(f.Path),
			"contentUrl": f.Path, "contentSize": fmt.Sprintf("%d B", f.Bytes), "encodingFormat": encoding(f.Path), "sha256": f.SHA256})
	}
	for _, r := range p.runs {
		for _, name := range []string{results.RequestsFile, results.SpansFile, results.CellsFile} {
			file := r.Path + "/" + name
			id := strings.TrimPrefix(strings.TrimSuffix(file, ".arrow"), RunsFolder+"/")
			columns, err := r.Set.Columns(name)
			if err != nil {
				return "", err
			}
			var fields []object
			for _, c := range columns {
				field := object{"@type": "cr:Field", "@id": id + "/" + c.Name, "name": c.Name, "dataType": dataType(c.Type),
					"source": object{"fileObject": ref(file), "extract": object{"column": c.Name}}}
				if c.Unit != "" {
					field["description"] = "in " + c.Unit
				}
				if c.List {
					field["repeated"] = true
				}
				fields = append(fields, field)
			}
			sets = append(sets, object{"@type": "cr:RecordSet", "@id": id, "name": id, "description": about(name), "field": fields})
		}
	}
	return pretty(object{"@context": croissantContext(), "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
		"name": p.m.Name, "description": p.abstract(), "license": licenceID(p.m.Licence), "version": "1.0.0", "datePublished": p.m.Created,
		"creator": object{"@type": "Organization", "name": p.author()}, "citeAs": p.bibtex(), "isLiveDataset": false,
		"distribution": distribution, "recordSet": sets})
}

// dataType is the Croissant type of an Arrow type.
func dataType(arrow string) string {
	switch {
	case strings.HasPrefix(arrow, "int"), strings.HasPrefix(arrow, "uint"):
		return "sc:Integer"
	case strings.HasPrefix(arrow, "float"):
		return "sc:Float"
	}
	return "sc:Text"
}
