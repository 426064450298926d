// Package orchestrate decides what runs where at the mobile edge, over plain numbers: which nodes hold which models, where each
// user's requests go, and how cells and processors are shared (checklist X2, X4); and how many replicas run, which one is asked, what
// is let in, and what happens when a node dies.
//
//	d := orchestrate.Local(&in, orchestrate.Greedy(&in)) // joint placement, routing and shares
//	figures, faults := in.Judge(&d)                      // latency, goodput, watts, carbon, cost; what is violated
//	best, err := orchestrate.Exhaustive(&in)             // the optimum, for small instances
//	ratio := in.Score(&best) / in.Score(&d)
//	n, err := orchestrate.Servers(12, 1.5, 0.1)          // replicas for a mean wait of 0.1 s (Erlang C)
//	x := orchestrate.MinSum(flows)                       // bandwidth or compute shares
//
// Every rule stands beside an optimum that its tests compare it with: closed forms beside numerical minima, searches beside exhaustive
// ones, policies beside the best schedule. Functions are pure; chance comes in as numbers. Delays are those of queues in the long run.
//
// What the package does not do: it moves no bytes and knows no world (harness/pipeline does), it models no interference between cells
// and no mobility, and it does not forecast: rates come in.
package orchestrate
