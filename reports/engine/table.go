package engine

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// sheet is a table of texts.
type sheet struct {
	head []string
	rows [][]string
}

// head says what the machine is and can do.
func (r *Report) head(w io.Writer) error {
	m := r.Limits.Machine
	fmt.Fprintf(w, "%s, %d core(s), %s/%s, kernels: %s\n", m.CPU, m.Cores, m.OS, m.Arch, r.Limits.Tier)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, n := range r.threads() {
		fmt.Fprintf(tw, "limits, %d thread(s):", n)
		memory, peaks := r.limits(n)
		for _, f := range append(memory, peaks...) {
			fmt.Fprintf(tw, "\t%s %s G%s", f.Detail, giga(f.Value), f.Unit)
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(r.Kernels) > 0 {
		fmt.Fprintf(w, "layer %v; products and attention of one token read copies in turn that no cache holds\n", r.Layer)
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (r *Report) table() sheet {
	if len(r.Rows) > 0 {
		return r.rowTable()
	}
	return r.kernelTable()
}

func (r *Report) kernelTable() sheet {
	s := sheet{head: []string{"op", "shape", "type", "threads", "tier", "time", "GB/s", "GFLOP/s", "GOP/s", "limit", "of limit"}}
	for _, k := range r.Kernels {
		flop, op := giga(k.Rate()), ""
		if k.Integer {
			flop, op = op, flop
		}
		s.rows = append(s.rows, []string{k.Op, k.Shape, strings.ToLower(k.Format), strconv.Itoa(k.Threads), r.Limits.Tier,
			seconds(k.Time), giga(k.Bandwidth()), flop, op, r.limit(k.Bound, k.Threads), percent(k.Share)})
	}
	return s
}

func (r *Report) rowTable() sheet {
	s := sheet{head: []string{"model", "size", "params", "tier", "threads", "kv", "test", "t/s", "GB/s", "GOP/s", "limit", "of limit"}}
	for i := range r.Rows {
		row := &r.Rows[i]
		mean, deviation, _ := row.PerSec()
		share, bound := r.share(row)
		sec := row.mean().Seconds()
		s.rows = append(s.rows, []string{row.Model.Type, fmt.Sprint(row.Model.Bytes), count(row.Model.Params), r.Limits.Tier, strconv.Itoa(row.Threads),
			strings.ToLower(row.Cache.String()), row.Name(), fmt.Sprintf("%.2f ± %.2f", mean, deviation),
			giga(row.Work.Bytes / sec), giga((row.Work.Float + row.Work.Int) / sec), r.limit(bound, row.Threads), percent(share)})
	}
	return s
}

// limit names a limit with its value.
func (r *Report) limit(bound string, threads int) string {
	f, ok := r.Limits.Limit(bound, threads)
	if bound == "" || !ok {
		return "unknown"
	}
	return fmt.Sprintf("%s %s G%s", bound, giga(f.Value), f.Unit)
}

func percent(share float64) string {
	if share == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// seconds prints a time with three digits.
func seconds(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", 1e3*d.Seconds())
	}
	return fmt.Sprintf("%.3g µs", 1e6*d.Seconds())
}

// count prints a number of parameters.
func count(n int) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.2f B", float64(n)/1e9)
	}
	return fmt.Sprintf("%.2f M", float64(n)/1e6)
}

func (s sheet) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{s.head}, s.rows...) {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// markdown aligns columns too, so that the source can be read.
func (s sheet) markdown(w io.Writer) error {
	wide := make([]int, len(s.head))
	all := append([][]string{s.head}, s.rows...)
	for _, row := range all {
		for i, cell := range row {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for n, row := range all {
		for i, cell := range row {
			fmt.Fprintf(w, "| %s%s ", strings.ReplaceAll(cell, "|", `\|`), strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell)))
		}
		if _, err := fmt.Fprintln(w, "|"); err != nil {
			return err
		}
		if n == 0 {
			for i := range row {
				fmt.Fprintf(w, "| %s ", strings.Repeat("-", wide[i]))
			}
			fmt.Fprintln(w, "|")
		}
	}
	return nil
}

func (s sheet) csv(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(s.head); err != nil {
		return err
	}
	return c.WriteAll(s.rows) // flushes
}
