package main

// What is run, as meibench run and meibench plan are told.

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meibench/suites"
)

// narrow declares the flags that say what is run.
func (f *runFlags) narrow(fs *pflag.FlagSet) {
	for _, key := range []string{"app", "part", "pipeline", "site", "mode"} {
		f.filters[key] = fs.StringSlice(key, nil, "only cells with this "+key+" (repeat or separate by commas)")
	}
	fs.StringVar(&f.modelFile, "model", "", "model to run instead of the suite's: a name or a GGUF file")
	fs.StringArrayVar(&f.set, "set", nil, "override a key of the suite: key=value[,value...]; several values make an axis")
	fs.Uint64Var(&f.seed, "seed", 0, "seed instead of the cells' own")
	fs.IntVar(&f.repeats, "repeat", 0, "repeats of every cell instead of the suite's own")
	fs.BoolVar(&f.quick, "quick", false, "a quarter of the requests; marks every output NOT COMPARABLE")
}

// complete offers the names that exist as values of flags.
func (f *runFlags) complete(c *cobra.Command) {
	for flag, kindName := range map[string]string{"app": "applications", "pipeline": "pipelines", "site": "sites", "model": "models"} {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == kindName })
		names := kinds[i].names
		must(c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return names(), cobra.ShellCompDirectiveDefault
		}))
	}
	must(c.RegisterFlagCompletionFunc("mode", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return suites.Modes[:3], cobra.ShellCompDirectiveNoFileComp // conformance is for tests
	}))
}

func (f *runFlags) suites(args []string) ([]*suites.Suite, error) {
	if len(args) == 0 {
		args = []string{"quickstart"}
	}
	var set []suites.Set
	for _, s := range f.set {
		o, err := suites.ParseSet(s)
		if err != nil {
			return nil, err
		}
		set = append(set, o)
	}
	if f.modelFile != "" {
		set = append(set, suites.Set{Key: "model", Values: []any{f.modelFile}})
	}
	if f.server.URL != "" {
		for _, o := range [][2]string{{"pipeline", "endpoint"}, {"site", endpointSite}, {"mode", "measured"}} {
			set = append(set, suites.Set{Key: o[0], Values: []any{o[1]}})
		}
	}
	var list []*suites.Suite
	for _, name := range args {
		s, err := suites.Load(name, set...)
		if err != nil {
			return nil, err
		}
		keep := map[string][]string{}
		for key, v := range f.filters {
			keep[key] = *v
		}
		if err := s.Narrow(keep); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
