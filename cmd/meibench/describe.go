package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/hardware/profiles"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/reference/models"
	"meibench/suites"
	"meibench/workloads"
)

// number is one sourced figure of a description.
type number struct {
	Field  string  `json:"field"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Kind   string  `json:"kind"`
	Source string  `json:"source"`
}

// description is a thing by its name, with the source of each of its numbers.
type description struct {
	Kind    string   `json:"kind"`
	Name    string   `json:"name"`
	Doc     string   `json:"doc"`
	Lines   []string `json:"lines,omitempty"`
	Numbers []number `json:"numbers,omitempty"`
}

func newDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "describe NAME", Short: "show one thing with the source of every number", Aliases: []string{"show"},
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.describe(args[0]) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return allNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// allNames lists everything that can be described, once each.
func allNames() (names []string) {
	for _, k := range kinds {
		for _, n := range k.names() {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

func (a *app) describe(name string) error {
	var found []description
	base, _, _ := strings.Cut(name, ":") // llama-3.2-1b:q4_0
	for _, k := range kinds {
		for _, n := range k.names() {
			if n != name && n != base {
				continue
			}
			doc, err := k.doc(n)
			if err != nil {
				return err
			}
			d, err := describeItem(item{k.one(), n, doc}, name)
			if err != nil {
				return withCode(exitUsage, err)
			}
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return oneOf("name", name, allNames())
	}
	if a.json {
		return writeJSON(a.out, found)
	}
	for i, d := range found {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		a.print(d)
	}
	return nil
}

func (a *app) print(d description) {
	fmt.Fprintf(a.out, "%s %s: %s\n", d.Kind, d.Name, d.Doc)
	for _, l := range d.Lines {
		fmt.Fprintln(a.out, "  "+l)
	}
	if len(d.Numbers) == 0 {
		return
	}
	fmt.Fprintln(a.out)
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "  field\tvalue\tunit\tkind\tsource")
	assumed := 0
	for _, n := range d.Numbers {
		fmt.Fprintf(tw, "  %s\t%.6g\t%s\t%s\t%s\n", n.Field, n.Value, n.Unit, n.Kind, n.Source)
		if n.Kind == "assumed" {
			assumed++
		}
	}
	_ = tw.Flush() // errors of the writer show at the next print
	if assumed > 0 {
		fmt.Fprintf(a.out, "\n  %d of %d numbers are assumed: nobody read them in a source\n", assumed, len(d.Numbers))
	}
}

func describeItem(it item, name string) (description, error) {
	d := description{Kind: it.Kind, Name: name, Doc: it.Doc}
	switch it.Kind {
	case "application":
		app, err := workloads.Lookup(name)
		if err != nil {
			return d, err
		}
		d.Lines = append(d.Lines, fmt.Sprintf("scenario %s; privacy class %s, raw data may go as far as the %s zone (%s)",
			app.Scenario, app.Privacy.Class, app.Privacy.Zone, app.Privacy.Source))
		for _, p := range app.Payloads() {
			d.Lines = append(d.Lines, fmt.Sprintf("payload: %s, %d B a request on average (%s)", p.Kind, int64(p.Mean), p.From))
		}
		d.Lines = append(d.Lines, "levels, jitter, bursts of misses and limits with their sources: docs/applications.md")
		for _, n := range app.Numbers() {
			d.Numbers = append(d.Numbers, number{n.Name, n.Value, n.Unit, string(n.Kind), n.Source})
		}
	case "device", "link", "site", "model":
		return describeProfile(d)
	case "library":
		d.Lines = append(d.Lines, "in a suite: library: "+name+"; the keys and what they mean: docs/caching.md")
	case "pipeline":
		e, err := pipeline.Find(name)
		if err != nil {
			return d, err
		}
		d.Lines = append(d.Lines, "operations: "+e.Ops)
		if e.Two {
			d.Lines = append(d.Lines, "needs a second model, small: one that shares the tokenizer (--set small=mei-nano)")
		}
		for _, p := range e.Params {
			if len(p.Names) > 0 {
				d.Lines = append(d.Lines, fmt.Sprintf("--set %s=%s   %s (%s)", p.Name, p.Names[0], p.Doc, strings.Join(p.Names, ", ")))
				continue
			}
			d.Lines = append(d.Lines, fmt.Sprintf("--set %s=%s   %s (%s to %s)", p.Name, plain(p.Default), p.Doc, plain(p.Min), plain(p.Max)))
		}
	case "metric":
		if m, ok := record.Lookup(name); ok && m.Bench != "" {
			d.Lines = append(d.Lines, "in bench.txt: "+m.Bench)
		}
	case "suite":
		s, err := suites.Load(name)
		if err != nil {
			return d, err
		}
		d.Lines = append(d.Lines, "source: "+s.Source, "hash: "+s.Hash, "")
		d.Lines = append(d.Lines, strings.Split(strings.TrimRight(string(s.Text), "\n"), "\n")...)
	}
	return d, nil
}

func describeProfile(d description) (description, error) {
	for _, e := range models.Table {
		if e.Name == d.Name {
			m, err := models.Open(d.Name)
			if err != nil {
				return d, err
			}
			d.Lines = append(d.Lines, fmt.Sprintf("%+v", m.Model.Config), "SHA-256 "+m.SHA256)
			return d, nil
		}
	}
	rows, err := profiles.Describe(d.Name)
	if err != nil {
		return d, err
	}
	if d.Kind == "site" {
		s, err := profiles.Site(d.Name)
		if err != nil {
			return d, err
		}
		for _, p := range s.Nodes {
			d.Lines = append(d.Lines, fmt.Sprintf("node %s (%s): %s", p.Name, p.Role, strings.Join(append([]string{p.Device}, p.Others...), ", or ")))
		}
		for _, w := range s.Links {
			d.Lines = append(d.Lines, fmt.Sprintf("link %s to %s: %s", w.From, w.To, w.Link))
		}
		if n := s.Cells; n != nil {
			d.Lines = append(d.Lines, fmt.Sprintf("cells: %d sites of %s, %g m apart; %d edge nodes %s; backhaul %s; users move by %s", n.Columns*n.Rows,
				n.Scenario, n.Distance, n.Edges(), n.Edge, n.Backhaul, n.Move.Model))
		}
	}
	for _, r := range rows {
		d.Numbers = append(d.Numbers, number{r.Field, r.Value, r.Unit, string(r.Kind), r.Source})
	}
	return d, nil
}

// plain is a number without an exponent.
func plain(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
