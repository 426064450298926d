package depot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// mirror is what a node gets from others when it is asked for.
type mirror struct {
	client *Client
	blocks map[string]Block
	mu     sync.Mutex
	coming map[string]*coming
}

// coming is a block on its way to the node.
type coming struct {
	done chan struct{}
	err  error
}

// Mirror has the node serve what the client's sources have, besides its own: their models stand in its catalogue, and a block comes
// when it is first asked for, once for all who wait, into the client's store. It is handed on when its digest has been checked, and
// not before: a range of it too. A model that the node has by the same name stays the node's.
func (n *Node) Mirror(ctx context.Context, c *Client) (*Catalogue, error) {
	list, err := c.Catalogue(ctx)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.far != nil {
		return nil, errors.New("mirror: this node has one already")
	}
	far := &mirror{client: c, blocks: map[string]Block{}, coming: map[string]*coming{}}
	for _, m := range list.Models {
		if _, err := n.cat.Find(m.Name); err == nil {
			continue
		}
		n.cat.Models = append(n.cat.Models, m)
		for _, b := range m.Blocks {
			far.blocks[b.Digest] = b
		}
	}
	n.far = far
	return list, nil
}

// open is a verified block, once it has come. Who goes does not stop it: others may wait, or come again.
func (m *mirror) open(ctx context.Context, b Block) (*os.File, error) {
	for range 3 { // between coming and opening it may be evicted
		f, err := m.client.Store.Open(b)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		x := m.fetch(b)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-x.done:
		}
		if x.err != nil {
			return nil, x.err
		}
	}
	return nil, fmt.Errorf("block %s: evicted before it could be sent: want a larger budget", b.Digest)
}

// fetch begins to get a block, unless somebody has.
func (m *mirror) fetch(b Block) *coming {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.coming[b.Digest]; x != nil {
		return x
	}
	x := &coming{done: make(chan struct{})}
	m.coming[b.Digest] = x
	go func() {
		f, err := m.client.Block(context.Background(), b)
		if err == nil {
			err = f.Close()
		}
		x.err = err
		m.mu.Lock()
		delete(m.coming, b.Digest) // who asks from now on finds it in the store, or tries again
		m.mu.Unlock()
		close(x.done)
	}()
	return x
}
