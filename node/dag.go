package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
)

// profile is how trees become DAGs: the unixfs-v1-2025 profile of IPIP-499, so
// that every implementation that follows it gets the same root.
var profile = uio.UnixFS_v1_2025

// Added is the outcome of an import.
type Added struct {
	Root   cid.Cid `json:"root"`
	Size   uint64  `json:"size"`   // bytes of all distinct blocks, as an order names it (spec §1.3)
	Blocks int     `json:"blocks"` // distinct ones
	Files  int     `json:"files"`
	Bytes  uint64  `json:"bytes"` // of the files themselves
}

// An importer turns one path into a DAG.
type importer struct {
	ctx      context.Context
	dag      ipld.DAGService
	skip     func(path string) bool
	progress func(bytes uint64)
	files    int
	bytes    uint64
}

// ImportOptions tune an import. The zero value takes everything.
type ImportOptions struct {
	// Skip says which paths to leave out, directories with all that is below.
	// Nil takes everything.
	Skip func(path string) bool
	// Progress hears the number of file bytes read so far. It is called from
	// the importing goroutine. Nil is told nothing.
	Progress func(bytes uint64)
}

// Import reads the file or directory at path into dag as UnixFS: CIDv1, raw
// leaves, entries in order of name, symbolic links kept as links, no times and
// no modes, so that the same tree always has the same root. Devices, pipes and
// sockets are refused by name.
func Import(ctx context.Context, dag ipld.DAGService, path string, o ImportOptions) (Added, error) {
	im := &importer{ctx: ctx, dag: dag, skip: o.Skip, progress: o.Progress}
	info, err := os.Stat(path) // a link named by the user means what it points to
	if err != nil {
		return Added{}, fmt.Errorf("add: %w", err)
	}
	nd, err := im.node(path, info)
	if err != nil {
		return Added{}, fmt.Errorf("add: %w", err)
	}
	a := Added{Root: nd.Cid(), Files: im.files, Bytes: im.bytes}
	a.Size, a.Blocks, err = Measure(ctx, dag, nd.Cid())
	if err != nil {
		return Added{}, fmt.Errorf("add: %w", err)
	}
	return a, nil
}

func (im *importer) node(path string, info os.FileInfo) (ipld.Node, error) {
	if err := im.ctx.Err(); err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return im.file(path)
	case mode.IsDir():
		return im.dir(path)
	case mode&os.ModeSymlink != 0:
		return im.link(path)
	default:
		return nil, fmt.Errorf("%s: neither file, directory nor link (%v)", path, mode.Type())
	}
}

func (im *importer) file(path string) (ipld.Node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := helpers.DagBuilderParams{
		Dagserv:    im.dag,
		Maxlinks:   profile.FileDAGWidth,
		RawLeaves:  profile.RawLeaves,
		CidBuilder: profile.CidBuilder(),
	}
	b, err := p.New(chunk.NewSizeSplitter(&counter{f, im}, profile.ChunkSize))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	nd, err := balanced.Layout(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	im.files++
	return nd, nil
}

func (im *importer) dir(path string) (ipld.Node, error) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	d, err := uio.NewDirectory(im.dag, uio.WithCidBuilder(profile.CidBuilder()),
		uio.WithMaxHAMTFanout(profile.HAMTShardWidth), uio.WithSizeEstimationMode(profile.HAMTSizeEstimation))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d.SetHAMTShardingSize(profile.HAMTShardingSize)
	for _, e := range entries {
		child := filepath.Join(path, e.Name())
		if im.skip != nil && im.skip(child) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		nd, err := im.node(child, info)
		if err != nil {
			return nil, err
		}
		if err := d.AddChild(im.ctx, e.Name(), nd); err != nil {
			return nil, fmt.Errorf("%s: %w", child, err)
		}
	}
	nd, err := d.GetNode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nd, im.dag.Add(im.ctx, nd)
}

func (im *importer) link(path string) (ipld.Node, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return nil, err
	}
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	nd := merkledag.NodeWithData(data)
	if err := nd.SetCidBuilder(profile.CidBuilder()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nd, im.dag.Add(im.ctx, nd)
}

// counter reports what is read.
type counter struct {
	r  io.Reader
	im *importer
}

func (c *counter) Read(p []byte) (int, error) {
	if err := c.im.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.im.bytes += uint64(n)
	if c.im.progress != nil {
		c.im.progress(c.im.bytes)
	}
	return n, err
}

// Measure walks the DAG below root and returns its size by the law: the sum of
// the lengths of its distinct multihashes, identity blocks counting nothing
// (spec §1.3), and the number of distinct blocks.
func Measure(ctx context.Context, dag ipld.NodeGetter, root cid.Cid) (size uint64, blocks int, err error) {
	seen := map[string]bool{}
	queue := []cid.Cid{root}
	for len(queue) > 0 {
		c := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[string(c.Hash())] {
			continue
		}
		seen[string(c.Hash())] = true
		nd, err := dag.Get(ctx, c)
		if err != nil {
			return 0, 0, fmt.Errorf("measure %v: block %v: %w", root, c, err)
		}
		if c.Prefix().MhType != multihash.IDENTITY {
			size += uint64(len(nd.RawData()))
			blocks++
		}
		for _, l := range nd.Links() {
			queue = append(queue, l.Cid)
		}
	}
	return size, blocks, nil
}

// ErrExists is returned by Export when there is something at the destination.
var ErrExists = errors.New("destination exists")

// Export writes the UnixFS file, directory or link at root to the path dest,
// which must not exist: what another puts there meanwhile stays, and the error
// is ErrExists. Names that would leave dest are refused. It is written beside
// dest and appears there whole, or on error not at all.
func Export(ctx context.Context, dag ipld.DAGService, root cid.Cid, dest string) error {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%w: %s", ErrExists, dest)
	}
	nd, err := dag.Get(ctx, root)
	if err != nil {
		return fmt.Errorf("get %v: %w", root, err)
	}
	f, err := unixfile.NewUnixfsFile(ctx, dag, nd)
	if err != nil {
		return fmt.Errorf("get %v: %w", root, err)
	}
	defer f.Close()
	own, err := os.MkdirTemp(filepath.Dir(dest), ".lode-export-")
	if err != nil {
		return fmt.Errorf("get %v: %w", root, err)
	}
	defer os.RemoveAll(own)
	made := filepath.Join(own, "made")
	if err := files.WriteTo(f, made); err != nil {
		return fmt.Errorf("get %v: %w", root, err)
	}
	if err := moveNew(made, dest); err != nil {
		return fmt.Errorf("get %v: %w", root, err)
	}
	return nil
}

// moveNew renames from to dest, which it first makes itself: a rename alone
// would replace what another has put there.
func moveNew(from, dest string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(dest, 0o700)
	} else {
		var f *os.File
		if f, err = os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			err = f.Close()
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, dest)
	}
	if err != nil {
		return err
	}
	// Not os.Rename, which refuses any directory at dest. The kernel's refuses
	// one in which somebody has put something since, and so does Remove.
	if err := syscall.Rename(from, dest); err != nil {
		return errors.Join(fmt.Errorf("rename %s: %w", dest, err), os.Remove(dest))
	}
	return nil
}
