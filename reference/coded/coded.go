// Package coded is coded caching: what users keep beforehand lets one transmission serve several who want different files.
//
//	s, err := coded.New(4, 4, 2)            // 4 users, 4 files, each user has room for 2
//	caches, err := s.Place(files)           // what each user keeps
//	sent, err := s.Deliver(files, wants)    // XORs, for all to hear
//	file, err := s.Decode(user, caches[user], sent, wants)
//
// The one idea (Maddah-Ali and Niesen 2014): with t = users x room / files, every file is cut into C(users, t) parts, one for each
// t users, who keep it. For t+1 users, each lacks the part that the other t have: the XOR of these parts is one
// transmission that gives each of them its own. The rate is C(K,t+1)/C(K,t) files instead of the K(1-M/N) that parts sent one by one
// would take.
//
// Real bytes: files may differ in length and are padded to the longest. t must be whole: for a room between two such points, share
// files between two schemes. The package sends nothing; links do.
package coded

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
)

// Scheme is a number of users, files and files that fit each user.
type Scheme struct {
	users, files, room, t int
	parts                 []uint32 // the subsets of t users, ascending: part p is kept by the users of parts[p]
	index                 map[uint32]int
}

// mostUsers bounds the number of parts: C(20, 10) = 184,756.
const mostUsers = 20

// New makes a scheme. users x room must be a multiple of files.
func New(users, files, room int) (*Scheme, error) {
	switch {
	case users < 1 || users > mostUsers || files < 1:
		return nil, fmt.Errorf("coded caching for %d users and %d files: want 1 to %d users and at least one file", users, files, mostUsers)
	case room < 0 || room > files:
		return nil, fmt.Errorf("coded caching with room for %d of %d files: want 0 to all", room, files)
	case users*room%files != 0:
		return nil, fmt.Errorf("coded caching: %d users x room for %d is no multiple of %d files: share files between the schemes for less and for more room", users, room, files)
	}
	s := &Scheme{users: users, files: files, room: room, t: users * room / files, index: map[uint32]int{}}
	for set := uint32(0); set < 1<<users; set++ {
		if bits.OnesCount32(set) == s.t {
			s.index[set] = len(s.parts)
			s.parts = append(s.parts, set)
		}
	}
	return s, nil
}

// Rate is what is sent for the worst demands, in files: C(K,t+1)/C(K,t). Uncoded is the same by parts one by one: K(1-M/N).
func (s *Scheme) Rate() float64 { return float64(s.users-s.t) / float64(s.t+1) }

// Uncoded is what would be sent without coding for distinct demands, in files.
func (s *Scheme) Uncoded() float64 {
	return float64(s.users) * (1 - float64(s.room)/float64(s.files))
}

// size is the bytes of a part, of the longest file.
func (s *Scheme) size(files [][]byte) (int, error) {
	if len(files) != s.files {
		return 0, fmt.Errorf("coded caching: %d files, the scheme is for %d", len(files), s.files)
	}
	longest := 0
	for _, f := range files {
		longest = max(longest, len(f))
	}
	return (longest + len(s.parts) - 1) / len(s.parts), nil
}

// part is part p of a file, padded with zeros.
func (s *Scheme) part(file []byte, p, size int) []byte {
	out := make([]byte, size)
	if from := p * size; from < len(file) {
		copy(out, file[from:min(len(file), from+size)])
	}
	return out
}

// Cache is what a user keeps: for each file, the parts of the subsets that it belongs to, by number of the part; and how long files are.
type Cache struct {
	Parts   []map[int][]byte
	Lengths []int
}

// Bytes is the room that a cache takes.
func (c *Cache) Bytes() (n int) {
	for _, parts := range c.Parts {
		for _, p := range parts {
			n += len(p)
		}
	}
	return n
}

// Place is what each user keeps, before anybody asks for anything.
func (s *Scheme) Place(files [][]byte) ([]*Cache, error) {
	size, err := s.size(files)
	if err != nil {
		return nil, err
	}
	out := make([]*Cache, s.users)
	for u := range out {
		c := &Cache{Lengths: make([]int, s.files)}
		for n, f := range files {
			c.Lengths[n] = len(f)
			c.Parts = append(c.Parts, map[int][]byte{})
			for p, set := range s.parts {
				if set>>u&1 != 0 {
					c.Parts[n][p] = s.part(f, p, size)
				}
			}
		}
		out[u] = c
	}
	return out, nil
}

// Sent is one transmission: the XOR of one part for each user of a set.
type Sent struct {
	Users uint32 // bit u: for user u
	Data  []byte
}

// Deliver is what to send when user u wants file wants[u]: one transmission for each t+1 users.
func (s *Scheme) Deliver(files [][]byte, wants []int) ([]Sent, error) {
	size, err := s.size(files)
	if err != nil {
		return nil, err
	}
	if err := s.check(wants); err != nil {
		return nil, err
	}
	var out []Sent
	for set := uint32(0); set < 1<<s.users; set++ {
		if bits.OnesCount32(set) != s.t+1 {
			continue
		}
		x := make([]byte, size)
		for u := range s.users {
			if set>>u&1 != 0 {
				xor(x, s.part(files[wants[u]], s.index[set&^(1<<u)], size))
			}
		}
		out = append(out, Sent{set, x})
	}
	return out, nil
}

// Needed is how many of these have to be sent: of users who want the same file one leads, and what is for no leader can be worked
// out from the rest, C(K,t+1) - C(K-d,t+1) for d distinct files (Yu, Maddah-Ali and Avestimehr 2018). Decode wants them all.
func (s *Scheme) Needed(wants []int) (int, error) {
	if err := s.check(wants); err != nil {
		return 0, err
	}
	leaders, seen := uint32(0), map[int]bool{}
	for u, w := range wants {
		if !seen[w] {
			seen[w] = true
			leaders |= 1 << u
		}
	}
	n := 0
	for set := uint32(0); set < 1<<s.users; set++ {
		if bits.OnesCount32(set) == s.t+1 && set&leaders != 0 {
			n++
		}
	}
	return n, nil
}

func (s *Scheme) check(wants []int) error {
	if len(wants) != s.users {
		return fmt.Errorf("coded caching: %d demands of %d users", len(wants), s.users)
	}
	for u, w := range wants {
		if w < 0 || w >= s.files {
			return fmt.Errorf("coded caching: user %d wants file %d of %d", u, w, s.files)
		}
	}
	return nil
}

// ErrMissing says that something needed was not sent, or not kept.
var ErrMissing = errors.New("coded caching: a part is missing")

// Decode is the file that a user wants, from what it kept and heard.
func (s *Scheme) Decode(user int, kept *Cache, sent []Sent, wants []int) ([]byte, error) {
	if err := s.check(wants); err != nil {
		return nil, err
	}
	if user < 0 || user >= s.users || kept == nil || len(kept.Parts) != s.files || len(kept.Lengths) != s.files {
		return nil, fmt.Errorf("user %d with a cache of another scheme: %w", user, ErrMissing)
	}
	mine := wants[user]
	parts := make([][]byte, len(s.parts))
	for p, data := range kept.Parts[mine] {
		if p >= 0 && p < len(parts) {
			parts[p] = data
		}
	}
	for _, x := range sent {
		if x.Users>>user&1 == 0 || bits.OnesCount32(x.Users) != s.t+1 {
			continue
		}
		data := bytes.Clone(x.Data)
		for u := range s.users {
			if u == user || x.Users>>u&1 == 0 {
				continue
			}
			other, ok := kept.Parts[wants[u]][s.index[x.Users&^(1<<u)]]
			if !ok || len(other) != len(data) {
				return nil, fmt.Errorf("user %d, transmission to %b: %w", user, x.Users, ErrMissing)
			}
			xor(data, other)
		}
		parts[s.index[x.Users&^(1<<user)]] = data
	}
	var file []byte
	for p, data := range parts {
		if data == nil {
			return nil, fmt.Errorf("user %d, part %d of file %d: %w", user, p, mine, ErrMissing)
		}
		file = append(file, data...)
	}
	if n := kept.Lengths[mine]; n < 0 || n > len(file) {
		return nil, fmt.Errorf("file %d of %d bytes, %d came: %w", mine, n, len(file), ErrMissing)
	}
	return file[:kept.Lengths[mine]], nil
}

// xor adds b to a.
func xor(a, b []byte) {
	for i := range a {
		a[i] ^= b[i]
	}
}
