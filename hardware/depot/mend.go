package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Mend fetches ranges [from, to) of a model's file that are lacking in data, and no more, from the sources in turn. The blocks that have
// them are checked, and the file: what another way brought is believed no more than what came from here. It returns the bytes
// fetched.
func (c *Client) Mend(ctx context.Context, m *Model, data []byte, missing [][2]int64) (fetched int64, err error) {
	if err := m.Check(); err != nil {
		return 0, err
	}
	if int64(len(data)) != m.Bytes {
		return 0, fmt.Errorf("mend %s: %d bytes, the file has %d", m.Name, len(data), m.Bytes)
	}
	for _, b := range m.Blocks {
		touched := false
		for _, gap := range missing {
			from, to := max(gap[0], b.Offset), min(gap[1], b.Offset+b.Bytes)
			if from >= to {
				continue
			}
			touched = true
			if err := c.piece(ctx, b, from-b.Offset, data[from:to]); err != nil {
				return fetched, fmt.Errorf("mend %s: block %s: %w", m.Name, b.Digest, err)
			}
			fetched += to - from
		}
		if sum := sha256.Sum256(data[b.Offset : b.Offset+b.Bytes]); touched && hex.EncodeToString(sum[:]) != b.Digest {
			return fetched, fmt.Errorf("mend %s: %w: block at byte %d has SHA-256 %x, want %s", m.Name, ErrRefused, b.Offset, sum, b.Digest)
		}
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != m.SHA256 {
		return fetched, fmt.Errorf("mend %s: %w: the file has SHA-256 %x, want %s", m.Name, ErrRefused, sum, m.SHA256)
	}
	return fetched, nil
}

// piece fills dst with a block's bytes from an offset on.
func (c *Client) piece(ctx context.Context, b Block, from int64, dst []byte) (err error) {
	err = errors.New("no source given: want the address of a node")
	for _, src := range c.Sources {
		if err = c.pieceOf(ctx, src, b, from, dst); err == nil || ctx.Err() != nil {
			return err
		}
		err = fmt.Errorf("%s: %w", src, err)
	}
	return err
}

func (c *Client) pieceOf(ctx context.Context, src string, b Block, from int64, dst []byte) error {
	req, err := http.NewRequestWithContext(ctx, "GET", src+"/v1/blocks/"+b.Digest, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+int64(len(dst))-1))
	resp, err := c.http().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if want := fmt.Sprintf("bytes %d-%d/", from, from+int64(len(dst))-1); resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
		return fmt.Errorf("%w: answered %s with range %q, want %s", ErrRefused, resp.Status, resp.Header.Get("Content-Range"), want)
	}
	_, err = io.ReadFull(resp.Body, dst)
	return err
}
