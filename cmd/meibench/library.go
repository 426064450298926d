package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/harness"
	"meibench/internal/units"
	"meibench/reference/library"
	"meibench/reference/library/scan"
	"meibench/reference/placement"
)

const libraryLong = `Libraries of models made of blocks that they share: what edge nodes keep and
deliver (docs/libraries.md).

library scan finds what GGUF files have in common, by the content of their
tensors, and writes it as a file; library ladder writes what a GGUF file would be
in several recipes of meibench quantize; library show says what a library holds and what
sharing saves; library check reads a file and says what is wrong with it; library
place compares what placing policies find with so much storage on each server.

A LIBRARY is a file that ends in .yaml, or a name that meibench list libraries
knows, built around --model.`

// libraryFlags are those of all its verbs.
type libraryFlags struct {
	model   string
	out     string
	base    string
	name    string
	servers int
	room    float64
	zipf    float64
	policy  string
	types   []string
	tunes   int
}

func newLibrary(a *app) *cobra.Command {
	f := &libraryFlags{}
	c := &cobra.Command{Use: "library", Short: "models made of blocks that they share: scan files, make ladders, show, check, place", Long: libraryLong,
		Example: "  meibench library show finetunes:20 --model llama-3.2-1b:q4_0\n  meibench library scan *.gguf --out mine.yaml\n  meibench library ladder model-f16.gguf --types q4_k_m,q8_0 --out ladder.yaml\n  meibench library place mine.yaml --servers 4 --room 2000"}
	sub := func(use, short string, args cobra.PositionalArgs, run func(f *libraryFlags, args []string) error) *cobra.Command {
		s := &cobra.Command{Use: use, Short: short, Long: libraryLong, Args: args, RunE: func(_ *cobra.Command, args []string) error { return run(f, args) }}
		c.AddCommand(s)
		return s
	}
	show := sub("show LIBRARY", "models, blocks, and what sharing saves", cobra.ExactArgs(1), a.libraryShow)
	sub("check FILE", "read a library file and say what is wrong with it", cobra.ExactArgs(1), a.libraryCheck)
	scan := sub("scan FILE.gguf...", "find what model files share and write it as a library", cobra.MinimumNArgs(1), a.libraryScan)
	ladder := sub("ladder FILE.gguf", "write what a model file would be in several recipes as a library", cobra.ExactArgs(1), a.libraryLadder)
	place := sub("place LIBRARY", "compare placing policies on servers of so much storage", cobra.ExactArgs(1), a.libraryPlace)
	for _, s := range []*cobra.Command{show, place} {
		s.Flags().StringVar(&f.model, "model", "mei-base", "model that a named library is built around")
	}
	for _, s := range []*cobra.Command{scan, ladder} {
		s.Flags().StringVar(&f.out, "out", "-", "file to write; - is standard output")
		s.Flags().StringVar(&f.name, "name", "", "name of the library")
	}
	scan.Flags().StringVar(&f.base, "base", "", "name of the model that LoRA adapters go on, if there are several")
	ladder.Flags().StringSliceVar(&f.types, "types", []string{"q4_k_m", "q8_0", "f16"}, "recipes of meibench quantize, one rung each")
	ladder.Flags().IntVar(&f.tunes, "tunes", 0, "fine-tunes that keep the lowest layers, each in every recipe; 0 = the file alone")
	fl := place.Flags()
	fl.IntVar(&f.servers, "servers", 4, "servers side by side, each with users of its own")
	fl.Float64Var(&f.room, "room", 1000, "storage on each server, MB")
	fl.Float64Var(&f.zipf, "zipf", 0.8, "popularity of models: exponent of Zipf's law; a library file's weights go before it")
	fl.StringVar(&f.policy, "policy", "all", "one of "+strings.Join(policyNames(), ", ")+", or all")
	return c
}

func policyNames() []string {
	return namesOf(placement.Policies(), func(p [2]string) string { return p[0] })
}

// libraryOf reads or builds what an argument names.
func (f *libraryFlags) libraryOf(name string) (*library.Library, error) {
	l, err := harness.Library(name, f.model)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return l, nil
}

// librarySummary is what show prints.
type librarySummary struct {
	Name        string         `json:"name"`
	Source      string         `json:"source,omitempty"`
	Digest      string         `json:"digest"`
	Models      int            `json:"models"`
	Blocks      int            `json:"blocks"`
	BytesApart  units.Bytes    `json:"bytes_apart"`
	BytesShared units.Bytes    `json:"bytes_shared"`
	Most        []modelSummary `json:"models_listed"`
}

type modelSummary struct {
	Name  string      `json:"name"`
	Bytes units.Bytes `json:"bytes"`
	Own   units.Bytes `json:"own_bytes"` // of blocks that no other model has
	Count int         `json:"blocks"`
}

// listed is how many models show prints.
const listed = 20

func (a *app) libraryShow(f *libraryFlags, args []string) error {
	l, err := f.libraryOf(args[0])
	if err != nil {
		return err
	}
	return a.showLibrary(l)
}

// summaryOfLibrary lists all models, or as many as fit a screen.
func summaryOfLibrary(l *library.Library, all bool) librarySummary {
	s := librarySummary{Name: l.Name, Source: l.Source, Digest: l.Digest(), Models: len(l.Models), Blocks: len(l.Blocks)}
	s.BytesApart, s.BytesShared = l.Sizes()
	for i, m := range l.Models {
		own := units.Bytes(0)
		for _, j := range m.Blocks {
			if len(l.Users(j)) == 1 {
				own += l.Blocks[j].Bytes
			}
		}
		if all || i < listed {
			s.Most = append(s.Most, modelSummary{m.Name, l.Whole(i), own, len(m.Blocks)})
		}
	}
	return s
}

func (s *librarySummary) saving() string {
	if s.BytesApart == s.BytesShared {
		return fmt.Sprintf("%v, and nothing is shared", s.BytesApart)
	}
	if float64(s.BytesApart) < 1.005*float64(s.BytesShared) {
		return fmt.Sprintf("%v, of which hardly anything is shared (%v)", s.BytesApart, s.BytesApart-s.BytesShared)
	}
	return fmt.Sprintf("%v apart, %v shared: %.3g times less", s.BytesApart, s.BytesShared, float64(s.BytesApart)/float64(s.BytesShared))
}

func (a *app) showLibrary(l *library.Library) error {
	s := summaryOfLibrary(l, a.json)
	if a.json {
		return writeJSON(a.out, s)
	}
	fmt.Fprintf(a.out, "%s: %d models of %d blocks\n", s.Name, s.Models, s.Blocks)
	fmt.Fprintln(a.out, s.saving())
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "\nmodel\tsize\tof its own\tblocks")
	for _, m := range s.Most {
		fmt.Fprintf(tw, "%s\t%v\t%v\t%d\n", m.Name, m.Bytes, m.Own, m.Count)
	}
	if n := s.Models - len(s.Most); n > 0 {
		fmt.Fprintf(tw, "and %d more\n", n)
	}
	return tw.Flush()
}

func (a *app) libraryCheck(_ *libraryFlags, args []string) error {
	l, err := library.Load(args[0])
	if err != nil {
		return withCode(exitUsage, err)
	}
	if a.json {
		return writeJSON(a.out, summaryOfLibrary(l, true))
	}
	fmt.Fprintf(a.out, "%s: %d models of %d blocks, nothing wrong\n", l.Name, len(l.Models), len(l.Blocks))
	return nil
}

func (a *app) libraryScan(f *libraryFlags, args []string) error {
	l, err := scan.Files(args, scan.Options{Name: f.name, Base: f.base})
	if err != nil {
		return withCode(exitUsage, err)
	}
	return a.writeLibrary(f, l)
}

func (a *app) libraryLadder(f *libraryFlags, args []string) error {
	l, err := scan.Ladder(args[0], scan.LadderOptions{Name: f.name, Recipes: f.types, Tunes: f.tunes})
	if err != nil {
		return withCode(exitUsage, err)
	}
	return a.writeLibrary(f, l)
}

// writeLibrary writes a library to --out and says what sharing saves: on standard error where the file goes to standard output.
func (a *app) writeLibrary(f *libraryFlags, l *library.Library) error {
	text, err := l.Text()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if f.out == "-" {
		if a.json {
			return withCode(exitUsage, errors.New("--json prints a summary, the library itself is YAML: want --out FILE too"))
		}
		if !a.quiet {
			s := summaryOfLibrary(l, false)
			fmt.Fprintln(a.err, s.saving())
		}
		_, err = a.out.Write(text)
		return err
	}
	if _, err := os.Stat(f.out); err == nil {
		return withCode(exitUsage, fmt.Errorf("--out %s is there already: choose another name", f.out))
	} else if !errors.Is(err, os.ErrNotExist) {
		return withCode(exitEnvironment, err)
	}
	if err := os.WriteFile(f.out, text, 0o644); err != nil {
		return withCode(exitEnvironment, err)
	}
	return a.showLibrary(l)
}

// placed is a row of library place.
type placed struct {
	Policy string      `json:"policy"`
	Hit    float64     `json:"hit_ratio"`
	Used   units.Bytes `json:"bytes_used"`
	Saved  units.Bytes `json:"bytes_saved"` // by sharing, over storing what is placed apart
	Models int         `json:"models_placed"`
}

// libraryPlace places on servers that do not help each other, each with as many users who all want models by one law and get
// any that their server has: what a policy finds is what it makes of the storage.
func (a *app) libraryPlace(f *libraryFlags, args []string) error {
	l, err := f.libraryOf(args[0])
	if err != nil {
		return err
	}
	if f.servers < 1 || f.servers > 1000 || !(f.room >= 0 && f.room <= 1e9) {
		return withCode(exitUsage, fmt.Errorf("--servers %d, --room %g: want 1 to 1000 servers and 0 to 1e9 MB", f.servers, f.room))
	}
	var demand *library.Demand
	if l.Weights != nil {
		demand, err = library.DemandOf(library.Popularity{}, l.Weights, 1)
	} else {
		demand, err = library.NewDemand(library.Popularity{S: f.zipf}, len(l.Models), 1)
	}
	if err != nil {
		return withCode(exitUsage, err)
	}
	in := &placement.Instance{Lib: l}
	wants := make([]float32, len(l.Models))
	for i, p := range demand.Probabilities(0) {
		wants[i] = float32(p)
	}
	for m := range f.servers {
		in.Room = append(in.Room, units.Bytes(f.room*1e6))
		in.Users = append(in.Users, placement.User{Wants: wants, Deadline: 1, Covers: []placement.Cover{{Server: m, Rate: 1e18}}})
	}
	if err := in.Check(); err != nil {
		return withCode(exitUsage, err)
	}
	names := policyNames()
	if f.policy != "all" {
		if !slices.Contains(names, f.policy) {
			return withCode(exitUsage, fmt.Errorf("--policy %q: want one of %s, or all", f.policy, strings.Join(names, ", ")))
		}
		names = []string{f.policy}
	}
	var rows []placed
	for _, name := range names {
		p, err := placement.Decide(name, in)
		if err != nil {
			return withCode(exitUsage, err)
		}
		row := placed{Policy: name, Hit: in.Hit(p)}
		apart := units.Bytes(0)
		for m, models := range p {
			row.Used += in.Used(p, m)
			row.Models += len(models)
			for _, i := range models {
				apart += l.Whole(i)
			}
		}
		if placement.Apart(name) {
			row.Used = apart
		}
		row.Saved = apart - row.Used
		rows = append(rows, row)
	}
	if a.json {
		return writeJSON(a.out, rows)
	}
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "policy\tfound\tmodels placed\tstorage used\tsaved by sharing")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.3g %%\t%d\t%v\t%v\n", r.Policy, 100*r.Hit, r.Models, r.Used, r.Saved)
	}
	return tw.Flush()
}
