package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	dag "github.com/ipfs/boxo/ipld/merkledag"
	unixfs "github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/gateway"
)

type readKey struct{}

// A patient exchange gives what its reader said that it will read at once, and the first block beyond that after five
// seconds, as ours does.
type patient struct {
	askedOf
	at   map[cid.Cid]uint64 // where a leaf begins in the file
	late atomic.Bool
}

// A heldTo is a session of one request.
type heldTo struct {
	*patient
	from, to uint64
}

func (x *patient) NewSession(ctx context.Context) exchange.Fetcher {
	said, ok := ctx.Value(readKey{}).([2]uint64)
	if !ok || said[0] == math.MaxUint64 {
		return heldTo{x, 0, math.MaxUint64}
	}
	return heldTo{x, said[0], said[0] + min(said[1], math.MaxUint64-said[0])}
}

func (s heldTo) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if at, ok := s.at[c]; ok && (at >= s.to || at+1000 <= s.from) && s.late.CompareAndSwap(false, true) {
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.askedOf.from.Get(ctx, c)
}

func (s heldTo) GetBlocks(ctx context.Context, ks []cid.Cid) (<-chan blocks.Block, error) {
	out := make(chan blocks.Block, len(ks))
	go func() {
		defer close(out)
		for _, k := range ks {
			b, err := s.GetBlock(ctx, k)
			if err != nil {
				return
			}
			out <- b
		}
	}()
	return out, nil
}

// A tar holds the whole file whatever range the request names, and the exchange is told so: it once held back what lay
// beyond the range.
func TestATarWithARangeIsNotHeldBack(t *testing.T) {
	root, at, bs := fileOf(t, 60, 1000)
	for _, c := range []struct {
		target, accept string
		code           int
	}{
		{target: "", code: http.StatusPartialContent},
		{target: "?format=tar", code: http.StatusOK},
		{accept: "text/html, application/x-tar", code: http.StatusOK},
	} {
		t.Run(fmt.Sprint(c.target, c.accept), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &patient{askedOf: askedOf{from: bs}, at: at}
				h := handler(t, gateway.Config{
					Store: load(t), Exchange: x,
					WithRead: func(ctx context.Context, from, n uint64) context.Context {
						return context.WithValue(ctx, readKey{}, [2]uint64{from, n})
					},
				})
				begun := time.Now()
				ctx, gone := context.WithCancel(t.Context())
				defer gone()
				r := httptest.NewRequestWithContext(ctx, "GET", "/ipfs/"+root.String()+c.target, nil)
				r.Header.Set("Range", "bytes=2000-2999")
				r.Header.Set("Accept", c.accept)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != c.code || !strings.Contains(w.Body.String(), strings.Repeat(string(rune('a'+2)), 1000)) {
					t.Fatalf("code %d, %d bytes, want %d and what is in the range", w.Code, w.Body.Len(), c.code)
				}
				if last := bytes.Contains(w.Body.Bytes(), bytes.Repeat([]byte{'a' + 59}, 1000)); last != (c.code == http.StatusOK) {
					t.Errorf("the last leaf is in the answer: %v, want %v", last, !last)
				}
				if took := time.Since(begun); took != 0 {
					t.Errorf("took %v, want no wait", took)
				}
			})
		})
	}
}

// fileOf returns a file of n leaves of so many bytes, each leaf of a letter of its own, where each begins, and a store
// with all of it.
func fileOf(t *testing.T, n, bytesEach int) (cid.Cid, map[cid.Cid]uint64, blockstore.Blockstore) {
	t.Helper()
	bs, at := load(t), map[cid.Cid]uint64{}
	fs := unixfs.NewFSNode(unixfs.TFile)
	root := dag.NodeWithData(nil)
	root.SetCidBuilder(dag.V1CidPrefix())
	for i := range n {
		leaf := dag.NewRawNode(bytes.Repeat([]byte{byte('a' + i)}, bytesEach))
		if err := bs.Put(t.Context(), leaf); err != nil {
			t.Fatal(err)
		}
		if err := root.AddNodeLink("", leaf); err != nil {
			t.Fatal(err)
		}
		fs.AddBlockSize(uint64(bytesEach))
		at[leaf.Cid()] = uint64(i * bytesEach)
	}
	data, err := fs.GetBytes()
	if err != nil {
		t.Fatal(err)
	}
	root.SetData(data)
	if err := bs.Put(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	return root.Cid(), at, bs
}
