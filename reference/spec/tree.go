package spec

import "fmt"

// Tree is drafts that share prefixes. Node i continues node Parents[i], or the last accepted token if that is -1; a parent
// stands before its children, and children are judged in the order in which they stand. llm.Seq takes the same parents.
type Tree struct {
	Tokens  []int32
	Parents []int32
}

// Check says what is wrong with a tree that was made elsewhere.
func (t Tree) Check() error {
	if len(t.Tokens) != len(t.Parents) {
		return fmt.Errorf("draft tree: %d tokens and %d parents: want as many", len(t.Tokens), len(t.Parents))
	}
	for i, p := range t.Parents {
		if p < -1 || int(p) >= i {
			return fmt.Errorf("draft tree: node %d has parent %d: want -1 or a node before it", i, p)
		}
	}
	return nil
}

// Static is the tree with widths[d] children for every node of depth d, level by level; its tokens are 0, for the caller to
// fill. Widths of 1 make a chain.
func Static(widths []int) Tree {
	var t Tree
	level := []int{-1}
	for _, w := range widths {
		var below []int
		for _, parent := range level {
			for range w {
				below = append(below, len(t.Parents))
				t.Parents = append(t.Parents, int32(parent))
			}
		}
		level = below
	}
	t.Tokens = make([]int32, len(t.Parents))
	return t
}

// Depths is the distance of each node from the last accepted token, at least 1: its position in the text.
func (t Tree) Depths() []int {
	out := make([]int, len(t.Parents))
	for i, p := range t.Parents {
		if out[i] = 1; p >= 0 {
			out[i] = out[p] + 1
		}
	}
	return out
}

// Mask says which nodes a node may attend to: itself and its ancestors (SpecInfer's topology-aware mask).
//
//	answer: (n, n) row-major; [i n + j] is whether i sees j
func (t Tree) Mask() []bool {
	n := len(t.Parents)
	out := make([]bool, n*n)
	for i, p := range t.Parents {
		if p >= 0 {
			copy(out[i*n:][:n], out[int(p)*n:][:n])
		}
		out[i*n+i] = true
	}
	return out
}

// Children lists the nodes that continue node i, or the last accepted token for -1.
func (t Tree) Children(i int) (out []int) {
	for c := max(i, 0); c < len(t.Parents); c++ {
		if int(t.Parents[c]) == i {
			out = append(out, c)
		}
	}
	return out
}

// Greedy walks down while a child is what the target says, and returns the nodes passed and the target's token after the last.
// target(i) is the target's choice after node i, or after the last accepted token for -1.
func (t Tree) Greedy(target func(node int) int32) (path []int, next int32) {
	at := -1
	for {
		next = target(at)
		moved := false
		for _, c := range t.Children(at) {
			if t.Tokens[c] == next {
				at, moved = c, true
				path = append(path, c)
				break
			}
		}
		if !moved {
			return path, next
		}
	}
}

// Verify walks down by SpecInfer's multi-step rule (Miao et al., ASPLOS 2024, algorithm 2): the children of a node are tried in
// turn, each against what the rejections before it left of the target's law, and if none stays the next token comes from the
// rest. Path and next have the target's law provided that every child was drawn from its q on its own, with replacement: the
// children of one node may be equal, and must not have been made different.
//
//	p(i): (V), the target's law after node i, or after the last accepted token for -1
//	q(i): (V), the law that node i was drawn from
func (t Tree) Verify(p, q func(node int) []float64, u func() float64) (path []int, next int) {
	path, left := t.walk(p, q, func(left, q []float64, x int) bool { return Accepts(left, q, x, u()) })
	return path, Draw(left, u())
}

// walk goes down while a child is accepted, and returns what is left of the target's law where it ends.
func (t Tree) walk(p, q func(node int) []float64, accept func(left, q []float64, x int) bool) (path []int, left []float64) {
	at := -1
	for {
		left = append(left[:0], p(at)...)
		moved := false
		for _, c := range t.Children(at) {
			if accept(left, q(c), int(t.Tokens[c])) {
				at, moved = c, true
				path = append(path, c)
				break
			}
			Residual(left, left, q(c))
		}
		if !moved {
			return path, left
		}
	}
}
