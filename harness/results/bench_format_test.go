package results

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchproc"

	"meibench/harness/record"
)

// text writes benchmark text for a number of repeats of cells under a contract.
func benchText(t *testing.T, mode, contract string, repeats int, pipelines ...string) string {
	var lines []Line
	for i, p := range pipelines {
		for rep := range repeats {
			c := cell(i, rep)
			c.Mode, c.Contract, c.Pipeline, c.Valid, c.Params = mode, contract, p, true, nil
			sum := record.NewSummary(&c)
			for id := range 20 {
				sum.Add(request(uint64(rep), id))
			}
			lines = append(lines, Line{&c, 20, sum.Values()})
		}
	}
	var b bytes.Buffer
	require.NoError(t, WriteBench(&b, lines))
	return b.String()
}

// tablesOf does what benchstat does with its default projections: a table per
// configuration of the file, a row per name, a column per file.
func tablesOf(t *testing.T, files ...string) (tables map[string]map[string][]float64, units benchfmt.UnitMetadataMap) {
	parser := &benchproc.ProjectionParser{}
	filter, err := benchproc.NewFilter("*")
	require.NoError(t, err)
	table, _, err := parser.ParseWithUnit(".config", filter)
	require.NoError(t, err)
	row, err := parser.Parse(".fullname", filter)
	require.NoError(t, err)
	tables, all := map[string]map[string][]float64{}, benchfmt.UnitMetadataMap{}
	for _, f := range files {
		r := benchfmt.NewReader(strings.NewReader(f), "file")
		for r.Scan() {
			switch rec := r.Result().(type) {
			case *benchfmt.SyntaxError:
				t.Fatal(rec)
			case *benchfmt.Result:
				name := row.Project(rec).String()
				for i, key := range table.ProjectValues(rec) {
					k := key.String()
					if tables[k] == nil {
						tables[k] = map[string][]float64{}
					}
					tables[k][name] = append(tables[k][name], rec.Values[i].Value)
				}
			}
		}
		require.NoError(t, r.Err())
		for k, v := range r.Units() {
			all[k] = v
		}
	}
	return tables, all
}

func TestDifferentContractsLandInDifferentTables(t *testing.T) {
	a := benchText(t, "measured", "aaaa", 6, "split")
	same, units := tablesOf(t, a, benchText(t, "measured", "aaaa", 6, "split"))
	other, _ := tablesOf(t, a, benchText(t, "measured", "bbbb", 6, "split"))
	require.Len(t, other, 2*len(same), "not one table holds both")
	for k, rows := range same {
		require.Contains(t, k, "contract:aaaa")
		for name, values := range rows {
			require.Len(t, values, 12, "%s %s: a line per run", k, name)
		}
	}
	require.Equal(t, 1, units.GetBetter("goodput-req/s"))
	require.Equal(t, -1, units.GetBetter("ttft-p99-sec"))
	require.Equal(t, benchmath.AssumeNothing, units.GetAssumption("ttft-p99-sec"))
}

func TestModelledUnitsAreExactAndTheirOwn(t *testing.T) {
	_, units := tablesOf(t, benchText(t, "measured", "a", 1, "split"), benchText(t, "modelled", "b", 1, "split"))
	require.Equal(t, benchmath.AssumeExact, units.GetAssumption("modelled-ttft-p99-sec"))
	require.Equal(t, -1, units.GetBetter("modelled-ttft-p99-sec"))
	require.Equal(t, benchmath.AssumeNothing, units.GetAssumption("ttft-p99-sec"))
}

func TestBenchNames(t *testing.T) {
	for _, tc := range []struct {
		name string
		cell record.Cell
		want string
	}{
		{"parts in a fixed order", record.Cell{App: "ar", Pipeline: "split", Site: "home", Model: "m", Params: map[string]any{"rate": 0.5, "k": 4.0}}, "Ar/pipeline=split/site=home/model=m/k=4/rate=0.5"},
		{"an end that looks like GOMAXPROCS", record.Cell{App: "ar", Pipeline: "split", Model: "lte-4"}, "Ar/pipeline=split/model=lte_4"},
		{"a negative last parameter", record.Cell{App: "ar", Params: map[string]any{"gain": -3}}, "Ar/gain=_3"},
		{"an exponent at the end", record.Cell{App: "ar", Params: map[string]any{"noise": 1e-7}}, "Ar/noise=1e_07"},
		{"characters that would end the name", record.Cell{App: "ar", Site: "two words/a"}, "Ar/site=two_words_a"},
		{"no application", record.Cell{}, "Cell"},
		{"a modelled run has its seed", record.Cell{App: "ar", Mode: "modelled", Seed: 7}, "Ar/mode=modelled/seed=7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := benchNames([]Line{{Cell: &tc.cell}})[0]
			require.Equal(t, tc.want, got)
			_, procs := benchfmt.Name(got).Parts()
			for _, p := range procs {
				require.NotRegexp(t, `^-`, string(p), "read as GOMAXPROCS")
			}
		})
	}
	a, b := record.Cell{App: "ar", Suite: "s", Name: "x"}, record.Cell{App: "ar", Suite: "s", Name: "y"}
	require.Equal(t, []string{"Ar/cell=s.x", "Ar/cell=s.y"}, benchNames([]Line{{Cell: &a}, {Cell: &b}}), "only where they would look alike")
}

// An invalid run is in a table of its own; what is unknown is left out.
func TestInvalidRunsStandApart(t *testing.T) {
	good, bad := cell(0, 0), cell(0, 1)
	good.Valid = true
	m, _ := record.Lookup("goodput")
	var b bytes.Buffer
	require.NoError(t, WriteBench(&b, []Line{{&good, 1, []record.Value{{Metric: m, V: 1}}}, {&bad, 1, []record.Value{{Metric: m, V: 2}}}, {&good, 1, []record.Value{{Metric: m, V: math.NaN()}}}}))
	got, _ := tablesOf(t, b.String())
	require.Len(t, got, 2)
	require.Equal(t, 2, strings.Count(b.String(), "\nBenchmark"), b.String())
}

func TestContract(t *testing.T) {
	base := func() Contract {
		return Contract{Workload: map[string]any{"name": "chat", "rate": 2.0, "mix": map[string]any{"a": 1}}, Model: "m1", Limits: map[string]int64{"ttft_ns": 5}, Mode: "measured"}
	}
	ha, err := base().Hash()
	require.NoError(t, err)
	require.Len(t, ha, 64)
	for _, tc := range []struct {
		name  string
		spoil func(*Contract)
		want  string
	}{
		{"a parameter", func(c *Contract) { c.Workload["rate"] = 3.0 }, "[workload.rate: 2 -> 3]"},
		{"a nested parameter", func(c *Contract) { c.Workload["mix"] = map[string]any{"a": 2} }, "[workload.mix.a: 1 -> 2]"},
		{"a parameter that came", func(c *Contract) { c.Workload["burst"] = true }, "[workload.burst: none -> true]"},
		{"two fields, in order", func(c *Contract) { c.Mode, c.Model = "modelled", "m2" }, `[model: "m1" -> "m2" mode: "measured" -> "modelled"]`},
		{"a limit that went", func(c *Contract) { c.Limits = nil }, "[limits.ttft_ns: 5 -> none]"},
		{"nothing", func(*Contract) {}, "[]"},
		{"empty is absent", func(c *Contract) { c.Definitions, c.Data = []string{}, map[string]string{} }, "[]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := base()
			tc.spoil(&c)
			h, err := c.Hash()
			require.NoError(t, err)
			require.Equal(t, tc.want == "[]", h == ha)
			require.Equal(t, tc.want, fmt.Sprint(Diff(base(), c)))
		})
	}
}
