package paged

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// owner is a memory of blocks that does what the allocator says, and a plain copy of every sequence to hold it against. A
// place holds a digest of the whole text up to its token, as keys and values do.
type owner struct {
	t      testing.TB
	a      *Allocator
	memory [][]uint64
	live   []*Sequence
	texts  [][]int32
}

func newOwner(t testing.TB, blocks, size int) *owner {
	a, err := New(blocks, size)
	require.NoError(t, err)
	o := &owner{t: t, a: a, memory: make([][]uint64, blocks)}
	for i := range o.memory {
		o.memory[i] = make([]uint64, size)
	}
	return o
}

func digest(text []int32) uint64 {
	h := uint64(14695981039346656037)
	for _, id := range text {
		h = (h ^ uint64(uint32(id))) * 1099511628211
	}
	return h
}

func (o *owner) write(s *Sequence, text []int32, at int) {
	size := o.a.BlockSize()
	o.memory[s.Table()[at/size]][at%size] = digest(text[:at+1])
}

func (o *owner) open(prompt []int32) {
	free := o.a.Free()
	s, hit, err := o.a.Open(prompt)
	if err != nil {
		require.ErrorIs(o.t, err, ErrFull)
		require.Equal(o.t, free, o.a.Free())
		return
	}
	require.True(o.t, hit < len(prompt) || len(prompt) == 0)
	for at := hit; at < len(prompt); at++ {
		o.write(s, prompt, at)
	}
	o.live, o.texts = append(o.live, s), append(o.texts, slices.Clone(prompt))
}

func (o *owner) append(i int, id int32) {
	s := o.live[i]
	copies, err := s.Append(id)
	if err != nil {
		require.ErrorIs(o.t, err, ErrFull)
		require.Zero(o.t, o.a.Free())
		return
	}
	for _, c := range copies {
		copy(o.memory[c.To][:c.Tokens], o.memory[c.From])
		clear(o.memory[c.To][c.Tokens:])
	}
	o.texts[i] = append(o.texts[i], id)
	o.write(s, o.texts[i], s.Len()-1)
}

func (o *owner) fork(i int) {
	f, err := o.live[i].Fork()
	require.NoError(o.t, err)
	o.live, o.texts = append(o.live, f), append(o.texts, slices.Clone(o.texts[i]))
}

func (o *owner) close(i int) {
	o.live[i].Close()
	o.live[i].Close()
	o.live, o.texts = slices.Delete(o.live, i, i+1), slices.Delete(o.texts, i, i+1)
}

// check reads every sequence back, and counts.
func (o *owner) check() {
	size, users := o.a.BlockSize(), map[Block]int{}
	for i, s := range o.live {
		require.Equal(o.t, len(o.texts[i]), s.Len())
		require.Len(o.t, s.Table(), (s.Len()+size-1)/size)
		for at := range s.Len() {
			if got := o.memory[s.Table()[at/size]][at%size]; got != digest(o.texts[i][:at+1]) {
				require.FailNow(o.t, "a block was overwritten", "sequence %d, token %d of %d", i, at, s.Len())
			}
		}
		for _, b := range s.Table() {
			users[b]++
		}
	}
	for b := range o.a.blocks {
		require.Equal(o.t, users[Block(b)], o.a.blocks[b].users)
	}
	u, st := o.a.Usage(), o.a.Stats()
	require.Equal(o.t, len(users), u.Used)
	require.Equal(o.t, u.Blocks, u.Used+o.a.Free())
	require.Equal(o.t, u.Used, st.Taken-st.Returned)
	require.LessOrEqual(o.t, u.Waste, len(o.live)*(size-1), "less than a block a sequence")
	require.Equal(o.t, u.Used*size, u.Held+u.Waste)
	require.LessOrEqual(o.t, u.Findable, o.a.Free())
	require.Equal(o.t, len(o.live), u.Sequences)
}

// play runs a program of bytes: what to do, and with what.
func play(t testing.TB, program []byte) {
	if len(program) < 2 {
		return
	}
	o := newOwner(t, 1+int(program[0])%24, 1+int(program[1])%5)
	text := []int32{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3}
	for i := 2; i+1 < len(program); i += 2 {
		op, arg := program[i]%8, int(program[i+1])
		switch {
		case op == 0 || len(o.live) == 0: // prompts share beginnings
			prompt := slices.Clone(text[:arg%len(text)])
			if arg >= 128 && len(prompt) > 0 {
				prompt[len(prompt)-1] = int32(arg)
			}
			o.open(prompt)
		case op == 1:
			o.fork(arg % len(o.live))
		case op == 2:
			o.close(arg % len(o.live))
		default:
			o.append(arg%len(o.live), int32(arg/16))
		}
		o.check()
	}
	for len(o.live) > 0 {
		o.close(0)
		o.check()
	}
	st := o.a.Stats()
	require.Equal(t, st.Taken, st.Returned, "allocated = freed")
	require.Equal(t, len(o.memory), o.a.Free())
}

// TestD7PagedInvariants: whatever is opened, forked, extended and closed, every sequence reads back its own text, users are
// counted right, and in the end all blocks are free.
func TestD7PagedInvariants(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		program := make([]byte, 2+r.IntN(160))
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		play(t, program)
	}
}

func FuzzPaged(f *testing.F) {
	f.Add([]byte{9, 3, 0, 15, 0, 15, 1, 0, 3, 16, 3, 1, 2, 0, 0, 15})
	f.Add([]byte{3, 1, 0, 5, 1, 0, 1, 0, 4, 0, 4, 1, 4, 2, 2, 1})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 500 {
			play(t, program)
		}
	})
}

// TestD7PrefixReuseByHand: a prompt finds the blocks of an equal beginning, also after their sequence was closed, until room
// is needed, and then those at the end of the longest-unused text go first.
func TestD7PrefixReuseByHand(t *testing.T) {
	a, err := New(6, 4)
	require.NoError(t, err)
	text := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	one, hit, err := a.Open(text)
	require.NoError(t, err)
	require.Zero(t, hit)
	two, hit, err := a.Open([]int32{1, 2, 3, 4, 5, 6, 7, 8, 30, 31})
	require.NoError(t, err)
	require.Equal(t, 8, hit)
	require.Equal(t, one.Table()[:2], two.Table()[:2])
	require.Equal(t, 4, a.Usage().Used, "two shared, two tails")
	require.Equal(t, Usage{Blocks: 6, Used: 4, Tokens: 19, Held: 11, Waste: 5, Sequences: 2}, a.Usage())
	one.Close()
	two.Close()
	require.Equal(t, 2, a.Usage().Findable)
	whole, hit, err := a.Open(text[:8])
	require.NoError(t, err)
	require.Equal(t, 4, hit, "one token is left to compute")
	whole.Close()
	other, hit, err := a.Open([]int32{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7})
	require.NoError(t, err)
	require.Zero(t, hit)
	require.Equal(t, 1, a.Stats().Forgotten, "the end of the text goes, its beginning stays")
	_, _, err = a.Open(text)
	require.ErrorIs(t, err, ErrFull)
	require.Equal(t, 1, a.Free())
	begin, hit, err := a.Open(text[:5])
	require.ErrorIs(t, err, ErrFull, "one block to share, one more that is not there")
	require.Nil(t, begin)
	require.Zero(t, hit)
	other.Close()
	_, hit, err = a.Open(text)
	require.NoError(t, err)
	require.Equal(t, 4, hit)
	// Taken: 3, 1 beside two shared, 1 shared again and 1 new, 5, the shared one for each of two refusals, 1 shared and 2 new.
	// Forgotten: one for the five, one for the last. Asked: 9 + 10 + 8 + 18 + 9.
	require.Equal(t, Stats{Taken: 16, Returned: 13, Forgotten: 2, Copied: 0, Asked: 54, Hit: 16}, a.Stats())
}

// TestD7CopyOnWrite: a fork takes nothing until one side goes on.
func TestD7CopyOnWrite(t *testing.T) {
	a, err := New(3, 4)
	require.NoError(t, err)
	s, _, err := a.Open([]int32{1, 2})
	require.NoError(t, err)
	f, err := s.Fork()
	require.NoError(t, err)
	require.Equal(t, 2, a.Free())
	copies, err := f.Append(3)
	require.NoError(t, err)
	require.Equal(t, []Copy{{From: s.Table()[0], To: f.Table()[0], Tokens: 2}}, copies)
	copies, err = s.Append(4)
	require.NoError(t, err)
	require.Empty(t, copies, "nobody else holds it now")
	f.Close()
	_, err = f.Append(1)
	require.ErrorContains(t, err, "closed")
	_, err = f.Fork()
	require.ErrorContains(t, err, "closed")
	_, err = New(0, 4)
	require.ErrorContains(t, err, "0 blocks")
}

func Example() {
	a, _ := New(8, 4)
	s, _, _ := a.Open([]int32{1, 2, 3, 4, 5, 6})
	s.Close()
	_, hit, err := a.Open([]int32{1, 2, 3, 4, 9})
	fmt.Println(hit, errors.Is(err, ErrFull))
	// Output: 4 false
}
