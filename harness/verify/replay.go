package verify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"meibench/harness"
	"meibench/harness/bundle"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/internal/rng"
	"meibench/reference/tensor"
)

type bundleSeverity = bundle.Severity

// sampled is how many requests a sample has at least of each folder, in whole
// runs of cells.
const sampled = 300

// again makes runs of cells again and compares.
func (k *check) again(f *folder) {
	var exact, kernels []*arm
	for _, key := range keys(f.arms) {
		a := f.arms[key]
		switch why := k.cannot(f, a); {
		case k.o.Rerun == None:
			k.leaveShort("--rerun none", 1)
		case !f.sound[key]:
			k.leaveShort("rows that cannot be read", 1)
		case why != "":
			k.leaveShort(why, 1)
		case a.Cell.Mode == "modelled" || a.Cell.Mode == "conformance":
			exact = append(exact, a)
		case k.o.Rerun == Modelled:
			k.leaveShort("kernel runs, by --rerun modelled", 1)
		default:
			kernels = append(kernels, a)
		}
	}
	if k.o.Rerun == Sample {
		exact = k.sample(f, exact)
	}
	if k.o.Rerun != All {
		kernels = k.sample(f, kernels)
	}
	if err := k.exact(f, exact); err != nil {
		k.failed(f, "V060", err)
	}
	if err := k.kernels(f, kernels); err != nil {
		k.failed(f, "V050", err)
	}
}

// failed notes that a replay did not come to its end.
func (k *check) failed(f *folder, rule string, err error) {
	if k.ctx.Err() != nil {
		k.leaveShort("interrupted", 1)
		return
	}
	k.rep.say(rule, f.in("", ""), "cannot be run again: %s", plain(err, f.dir))
}

// leaveShort notes what keeps the bundle from being replayed.
func (k *check) leaveShort(why string, n int) {
	k.leave(why, n)
	k.short = true
}

// cannot says why a run of a cell cannot be made again; "" if it can.
func (k *check) cannot(f *folder, a *arm) string {
	if a.terms == nil {
		return a.why
	}
	for _, n := range a.terms.Site.Nodes {
		if n.Served != nil {
			return "answers of a real server"
		}
	}
	if f.foreign && a.Cell.Mode == "modelled" {
		return "profiles of another version"
	}
	if f.host == nil && (a.terms.Site.UsesHost() && a.Cell.Mode == "modelled" || a.Cell.Mode == "emulated" && !a.terms.Site.UsesHost()) {
		return "the profile of the machine is not in the folder"
	}
	if a.Cell.Mode == "measured" || a.Cell.Mode == "emulated" {
		return timely(a)
	}
	return ""
}

// timely says why the answers of an arm depend on time; "" if they do not.
func timely(a *arm) string {
	p := a.terms.Header.Params
	name := func(key string) string { s, _ := p[key].(string); return s }
	num := func(key string) float64 { n, _ := p[key].(float64); return n }
	switch lossy := name("wire") != "" && name("wire") != "f32"; {
	case a.Cell.Pipeline == "endpoint":
		return "answers of a real server"
	case a.Cell.Pipeline == "split" && name("adapt") != "no" && lossy:
		return "answers that depend on time: the cut follows the link and the codec is lossy"
	case a.Cell.Pipeline == "chain" && lossy:
		return "answers that depend on time: layers are placed by measured times and the codec is lossy"
	case name("reject") == "yes":
		return "outcomes that depend on time: the server refuses what would be late"
	case a.Cell.Pipeline == "speculate" && num("temperature") > 0:
		return "answers that depend on time: what is sampled depends on how many drafts a round trip allows"
	}
	return ""
}

// sample draws arms by the hash of the bundle until they have enough requests, and
// leaves the others. What asks the same counts once.
func (k *check) sample(f *folder, arms []*arm) []*arm {
	arms = slices.Clone(arms)
	seed := cmp.Or(k.o.Draw, k.seed, f.set.Manifest.Files[results.RequestsFile].SHA256)
	r := rng.Stream(0, "verify sample", seed, f.at)
	r.Shuffle(len(arms), func(i, j int) { arms[i], arms[j] = arms[j], arms[i] })
	asked, requests := map[string]bool{}, 0
	for i, a := range arms {
		id := question(a)
		if !asked[id] && requests >= sampled {
			k.leave("not in the sample", 1)
			arms[i] = nil
			continue
		}
		if !asked[id] {
			requests += a.Cell.Requests
		}
		asked[id] = true
	}
	return slices.DeleteFunc(arms, func(a *arm) bool { return a == nil })
}

// runAgain makes arms again in a folder of its own and hands it over.
func (k *check) runAgain(arms []*arm, change func(*harness.Arm), look func(*results.Set) error) (err error) {
	dir, err := os.MkdirTemp("", "meibench-verify-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	list := make([]harness.Arm, len(arms))
	for i, a := range arms {
		list[i] = a.Arm
		if list[i].Cell.Model = k.nameOf(a, a.Cell.Model); a.Cell.Small != "" {
			list[i].Cell.Small = k.nameOf(a, a.Cell.Small)
		}
		change(&list[i])
	}
	to := filepath.Join(dir, "run")
	if err := k.lab.Replay(k.ctx, to, list, k.o.Progress); err != nil {
		return err
	}
	set, err := results.Read(to)
	if err != nil {
		return err
	}
	defer set.Close()
	return look(set)
}

// nameOf is a model's name here: a file of --model where it is a file.
func (k *check) nameOf(a *arm, name string) string {
	if !isFile(name) {
		return name
	}
	return k.files[a.models[name]]
}

// exact makes modelled arms again: every byte must be equal.
func (k *check) exact(f *folder, arms []*arm) error {
	if len(arms) == 0 {
		return nil
	}
	return k.runAgain(arms, func(*harness.Arm) {}, func(set *results.Set) error {
		mine := indexOf(set)
		for i, run := range f.set.Runs() {
			j, ok := mine[results.KeyOf(&run.Cell)]
			if !ok {
				continue
			}
			n, err := k.compare(f, i, set, j)
			if err != nil {
				return err
			}
			k.replay.Modelled++
			k.replay.Rows += n
		}
		return nil
	})
}

func indexOf(set *results.Set) map[results.Key]int {
	out := map[results.Key]int{}
	for i, run := range set.Runs() {
		out[results.KeyOf(&run.Cell)] = i
	}
	return out
}

// compare compares run i of the folder with run j of its replay.
func (k *check) compare(f *folder, i int, set *results.Set, j int) (rows int, err error) {
	theirs, ours := f.set.Runs()[i].Cell, set.Runs()[j].Cell
	key := results.KeyOf(&theirs).String()
	ours.Model = theirs.Model // a file has another name here
	if name, ok := theirs.Params["small"].(string); ok && isFile(name) {
		ours.Params["small"] = name
	}
	if !equalJSON(theirs, ours) {
		k.rep.say("V060", f.in(results.CellsFile, key), "%s", unequal(reflect.ValueOf(theirs), reflect.ValueOf(ours)))
	}
	next, stop := iter.Pull2(set.Full(j))
	defer stop()
	for r, err := range f.set.Full(i) {
		if err != nil {
			return rows, err
		}
		own, oerr, ok := next()
		if oerr != nil {
			return rows, oerr
		}
		at := f.in(results.RequestsFile, fmt.Sprintf("%s request %d", key, r.ID))
		if !ok {
			k.rep.say("V060", at, "the replay has %d requests", rows)
			return rows, nil
		}
		if rows++; !sameRow(r, own) {
			k.rep.say("V060", at, "%s", unequal(reflect.ValueOf(*r), reflect.ValueOf(*own)))
		}
	}
	if _, _, more := next(); more {
		k.rep.say("V060", f.in(results.RequestsFile, key), "the replay has more than its %d requests", rows)
	}
	return rows, nil
}

// sameRow reports whether two rows are equal in all that tables keep.
func sameRow(a, b *record.Request) bool {
	if !slices.Equal(a.Spans, b.Spans) || !slices.Equal(a.Chunks, b.Chunks) || a.Counts != b.Counts || a.Energy != b.Energy || a.Err != b.Err {
		return false
	}
	x, y := plainRow(a), plainRow(b)
	return x == y
}

// row is what of a request can be compared with ==.
type row struct {
	ints   [26]int64
	floats [2]uint64
	hash   uint64
}

func plainRow(r *record.Request) row {
	q := r.Quality
	if math.IsNaN(q) {
		q = -1
	}
	return row{[26]int64{int64(r.ID), int64(r.User), int64(r.Session), int64(r.Turn), int64(r.Intended), int64(r.Released), int64(r.Sent), int64(r.FirstByte),
		int64(r.FirstChunk), int64(r.FirstToken), int64(r.FirstAnswerToken), int64(r.LastToken), int64(r.Done), int64(r.Deadline), int64(r.PromptTokens),
		int64(r.AskedTokens), int64(r.OutputTokens), int64(r.SensorBytes), int64(r.UpBytes), int64(r.DownBytes), int64(r.RawBytesOut), int64(r.DerivedBytesOut),
		int64(r.PeakBytes), int64(r.Outcome)}, [2]uint64{math.Float64bits(float64(r.FLOP)), math.Float64bits(q)}, r.OutputHash}
}

// unequal names the first exported field in which two values of one type differ.
func unequal(theirs, ours reflect.Value) string {
	t := theirs.Type()
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		a, b := theirs.Field(i), ours.Field(i)
		if fmt.Sprint(a.Interface()) == fmt.Sprint(b.Interface()) {
			continue
		}
		if a.Kind() == reflect.Slice {
			for n := range max(a.Len(), b.Len()) {
				if x, y := item(a, n), item(b, n); x != y {
					return fmt.Sprintf("%s[%d]: %s, the replay has %s", t.Field(i).Name, n, x, y)
				}
			}
		}
		return fmt.Sprintf("%s: %v, the replay has %v", t.Field(i).Name, a.Interface(), b.Interface())
	}
	return "differs from the replay"
}

func item(v reflect.Value, i int) string {
	if i < v.Len() {
		return fmt.Sprintf("%+v", v.Index(i).Interface())
	}
	return "nothing"
}

// equalJSON compares what would be written.
func equalJSON(a, b any) bool {
	x, err := canon.JSON(a)
	y, err2 := canon.JSON(b)
	return err == nil && err2 == nil && string(x) == string(y)
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// keys lists runs of cells in a fixed order.
func keys(m map[results.Key]*arm) []results.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b results.Key) int {
		return cmp.Or(cmp.Compare(m[a].Index, m[b].Index), cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Repeat, b.Repeat), cmp.Compare(a.Seed, b.Seed), cmp.Compare(a.Cell, b.Cell))
	})
}

// fused reports whether kernels multiply and add with one rounding: all but the
// generic ones do, and give equal bits.
func fused(kernel string) bool { return kernel != "generic" }

// sameKernels reports whether answers can be compared bit for bit.
func sameKernels(f *folder) bool {
	m := f.set.Manifest
	return fused(m.Host["kernels"]) == fused(tensor.Kernel()) && len(m.Agents) == 0
}
