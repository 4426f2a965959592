package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// A content is what holders hold.
type content struct {
	bs    blockstore.Blockstore
	roots []cid.Cid        // of files of which each is fetched by itself
	known map[cid.Cid]bool // the roots
	keys  []cid.Cid        // of all blocks, in the order of the graph, each once
	bytes uint64           // of all blocks
	size  int              // bytes of content
	names []string         // of the objects of a website
}

func store() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// random returns reproducible bytes.
func random(seed, stream uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], stream)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func dagOf(bs blockstore.Blockstore) ipld.DAGService {
	return merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
}

// addFile adds a balanced UnixFS file with raw leaves.
func addFile(dag ipld.DAGService, data []byte, leaf int) (ipld.Node, error) {
	db, err := (&helpers.DagBuilderParams{Dagserv: dag, Maxlinks: helpers.DefaultLinksPerBlock, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix()}).
		New(chunk.NewSizeSplitter(bytes.NewReader(data), int64(leaf)))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(db)
}

// makeContent builds what a workload needs.
func makeContent(ctx context.Context, c Cell, seed uint64) (*content, error) {
	w := &content{bs: store(), known: map[cid.Cid]bool{}, size: c.Size}
	dag := dagOf(w.bs)
	var err error
	switch c.Workload {
	case Directory:
		err = w.directory(ctx, dag, dirFiles, func(int) int { return c.Size / dirFiles }, c.Chunk, seed)
	case Website:
		err = w.directory(ctx, dag, siteObjects, siteSize, c.Chunk, seed)
	case Zipf:
		err = w.files(dag, zipfObjects, c, seed)
	case Cold:
		err = w.files(dag, coldRoots, c, seed)
	default:
		err = w.files(dag, 1, c, seed)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: content of %s: %w", c.Name, err)
	}
	for _, r := range w.roots {
		w.known[r] = true
	}
	return w, w.walk(ctx, dag)
}

// files adds n files of equal size.
func (w *content) files(dag ipld.DAGService, n int, c Cell, seed uint64) error {
	for i := range n {
		nd, err := addFile(dag, random(seed, uint64(i), c.Size/n), c.Chunk)
		if err != nil {
			return err
		}
		w.roots = append(w.roots, nd.Cid())
	}
	return nil
}

// siteSize spreads like the objects of a web page: a document, some scripts and
// fonts, many pictures.
func siteSize(i int) int {
	switch {
	case i == 0:
		return 40 << 10
	case i < 10:
		return 100<<10 + i*7919
	case i < 50:
		return 8<<10 + i*2311
	}
	return 350<<10 + i*4099
}

// directory adds n files in a directory, sharded if it is large.
func (w *content) directory(ctx context.Context, dag ipld.DAGService, n int, size func(int) int, leaf int, seed uint64) error {
	dir, err := uio.NewDirectory(dag)
	if err != nil {
		return err
	}
	dir.SetCidBuilder(merkledag.V1CidPrefix())
	w.size = 0
	for i := range n {
		nd, err := addFile(dag, random(seed, uint64(i), size(i)), leaf)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("object-%05d", i)
		if err := dir.AddChild(ctx, name, nd); err != nil {
			return err
		}
		w.names = append(w.names, name)
		w.size += size(i)
	}
	nd, err := dir.GetNode()
	if err != nil {
		return err
	}
	w.roots = []cid.Cid{nd.Cid()}
	return dag.Add(ctx, nd)
}

// walk lists the blocks.
func (w *content) walk(ctx context.Context, dag ipld.DAGService) error {
	seen := cid.NewSet()
	for _, r := range w.roots {
		err := merkledag.Walk(ctx, merkledag.GetLinksDirect(dag), r, func(c cid.Cid) bool {
			if !seen.Visit(c) {
				return false
			}
			w.keys = append(w.keys, c)
			return true
		}, merkledag.Concurrency(1))
		if err != nil {
			return err
		}
	}
	for _, c := range w.keys {
		n, err := w.bs.GetSize(ctx, c)
		if err != nil {
			return err
		}
		w.bytes += uint64(n)
	}
	return nil
}

// verify compares the blocks that bs has with those that were added. All says
// that none may be missing.
func (w *content) verify(ctx context.Context, bs blockstore.Blockstore, all bool) error {
	for _, c := range w.keys {
		got, err := bs.Get(ctx, c)
		if ipld.IsNotFound(err) && !all {
			continue
		}
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		want, err := w.bs.Get(ctx, c)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if !bytes.Equal(got.RawData(), want.RawData()) {
			return fmt.Errorf("verify: block %v is not what was added", c)
		}
	}
	return nil
}
