// Package orchestrate decides how the mobile edge is shared, over plain numbers: how many servers a load needs, and how a cell's
// bandwidth or a node's processor is divided among users (checklist X2, X4).
//
//	n, err := orchestrate.Servers(12, 1.5, 0.1)        // replicas for a mean wait of 0.1 s (Erlang C)
//	x := orchestrate.MinSum(flows)                     // bandwidth or compute shares
//
// Every rule stands beside an optimum that its tests compare it with. Functions are pure; delays are those of queues in the long run.
//
// What the package does not do: it moves no bytes and knows no world (harness/pipeline does), it models no interference between cells
// and no mobility, and it does not forecast: rates come in.
package orchestrate
