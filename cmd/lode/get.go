package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car/v2"
	"github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/node"
)

func (c *cli) getCmd() *cobra.Command {
	var gateway, out string
	cmd := &cobra.Command{
		Use:   "get CID[/path]",
		Short: "fetch a file or directory through a node's gateway, checking each block",
		Args:  nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, path, err := parsePath(args[0])
			if err != nil {
				return err
			}
			if out == "" {
				out = root.String()
				if len(path) > 0 {
					out = path[len(path)-1]
				}
			}
			if _, err := os.Lstat(out); err == nil {
				return usage("%s exists: name another place with --output", out)
			}
			return c.fetch(cmd.Context(), gateway, filepath.Dir(out), root, path, func(ctx context.Context, dag ipld.DAGService, nd ipld.Node, bytes int64) error {
				if err := node.Export(ctx, dag, nd.Cid(), out); err != nil {
					return err
				}
				return c.show(map[string]any{"root": root.String(), "cid": nd.Cid().String(), "output": out, "fetched": bytes},
					func(w io.Writer) { fmt.Fprintf(w, "%s  %s fetched and checked\n", out, size(uint64(bytes))) })
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "where to put it (default: the last name of the path, else the CID)")
	cmd.Flags().StringVar(&gateway, "gateway", "", "URL of the gateway (default: that of the node asked)")
	return cmd
}

func (c *cli) catCmd() *cobra.Command {
	var gateway string
	cmd := &cobra.Command{
		Use:   "cat CID[/path]",
		Short: "write a file to stdout, fetched as by get",
		Args:  nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, path, err := parsePath(args[0])
			if err != nil {
				return err
			}
			return c.fetch(cmd.Context(), gateway, os.TempDir(), root, path, func(ctx context.Context, dag ipld.DAGService, nd ipld.Node, _ int64) error {
				f, err := unixfile.NewUnixfsFile(ctx, dag, nd)
				if err != nil {
					return err
				}
				defer f.Close()
				file, ok := f.(files.File)
				if !ok {
					return usage("%s is a directory: use `lode get`", args[0])
				}
				_, err = io.Copy(c.stdout, file)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&gateway, "gateway", "", "URL of the gateway (default: that of the node asked)")
	return cmd
}

// fetch takes the DAG at root/path from the gateway as a CAR into a store of its own below tmp, each block checked
// against its CID, and hands the node at the end of the path to use. Nothing reaches use unless all of it is there: what
// a lying or broken gateway leaves out is an error when it is read.
func (c *cli) fetch(ctx context.Context, gateway, tmp string, root cid.Cid, path []string,
	use func(ctx context.Context, dag ipld.DAGService, nd ipld.Node, bytes int64) error) error {
	if gateway == "" {
		cl, err := c.client()
		if err != nil {
			return err
		}
		var st statusAnswer
		if err := cl.get(ctx, "/status", &st); err != nil {
			return err
		}
		if gateway = gatewayURL(st.Gateway); gateway == "" {
			return fmt.Errorf("the node at %s has no gateway: name one with --gateway", cl.where)
		}
	}
	dir, err := os.MkdirTemp(tmp, ".lode-get-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := node.OpenDisk(ctx, filepath.Join(dir, "blocks"), 0)
	if err != nil {
		return err
	}
	defer store.Close()
	n, err := c.fetchCAR(ctx, store, gateway, root, path)
	if err != nil {
		return err
	}
	dag := merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))
	nd, err := walk(ctx, dag, root, path)
	if err != nil {
		return err
	}
	return use(ctx, dag, nd, n)
}

// gatewayURL makes a URL of what a node says of its gateway.
func gatewayURL(listen string) string {
	if listen == "" || strings.Contains(listen, "://") {
		return strings.TrimRight(listen, "/")
	}
	return "http://" + listen
}

// fetchCAR reads the CAR of root/path into store and returns its length.
func (c *cli) fetchCAR(ctx context.Context, store *node.Disk, gateway string, root cid.Cid, path []string) (int64, error) {
	u := url.URL{Path: "/ipfs/" + strings.Join(append([]string{root.String()}, path...), "/"), RawQuery: "format=car&dag-scope=all"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gatewayURL(gateway)+u.String(), nil)
	if err != nil {
		return 0, usage("--gateway %s: %v", gateway, err)
	}
	req.Header.Set("Accept", "application/vnd.ipld.car")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && ctx.Err() == nil {
			return 0, &coded{exitNoNode, fmt.Errorf("no gateway answers at %s: is the node running?", gateway)}
		}
		return 0, fmt.Errorf("fetch %v: %w", root, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, gatewayRefusal(resp)
	}
	if resp.Header.Get("Lode-Simulated") == "true" {
		c.say("note: this network's storage nodes are simulated; their proofs prove nothing")
	}
	bar := c.bar(resp.ContentLength, "fetching")
	counted := &countReader{r: io.TeeReader(resp.Body, bar)}
	defer func() { _ = bar.Finish() }()
	r, err := car.NewBlockReader(bufio.NewReaderSize(counted, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("fetch %v: what %s sends is no CAR: %w", root, gateway, err)
	}
	asked := wanted{string(root.Hash()): true}
	for {
		b, err := r.Next() // checks the block against its CID
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return counted.n, nil
		}
		if err != nil {
			return counted.n, fmt.Errorf("fetch %v: broken off after %s: %w", root, size(uint64(counted.n)), err)
		}
		again, err := asked.take(b)
		if err != nil {
			return counted.n, fmt.Errorf("fetch %v: %s: %w", root, gateway, err)
		}
		if again {
			continue
		}
		if err := store.Put(ctx, b); err != nil {
			return counted.n, err
		}
	}
}

// wanted has the multihashes that a fetch may bring, by what came before: true until they came. A gateway that could send
// others could fill the disk with blocks whose hashes are all right.
type wanted map[string]bool

// take notes that b came, and that its links may come now. It reports whether b came before; then it need not be kept.
func (w wanted) take(b blocks.Block) (again bool, err error) {
	waits, known := w[string(b.Cid().Hash())]
	if !known {
		return false, fmt.Errorf("it sent block %v, to which no block before it links", b.Cid())
	}
	if !waits {
		return true, nil
	}
	w[string(b.Cid().Hash())] = false
	return false, w.want(b)
}

// want takes in the links of b, and of what stands inside them in place of a hash.
func (w wanted) want(b blocks.Block) error {
	if b.Cid().Prefix().Codec != cid.DagProtobuf {
		return nil // a file's bytes; other codecs are no UnixFS
	}
	nd, err := merkledag.DecodeProtobufBlock(b)
	if err != nil {
		return fmt.Errorf("block %v: %w", b.Cid(), err)
	}
	for _, l := range nd.Links() {
		k := string(l.Cid.Hash())
		if _, known := w[k]; known {
			continue
		}
		w[k] = true
		if l.Cid.Prefix().MhType != multihash.IDENTITY {
			continue
		}
		inline, err := multihash.Decode(l.Cid.Hash())
		if err != nil {
			return fmt.Errorf("link %v: %w", l.Cid, err)
		}
		inside, err := blocks.NewBlockWithCid(inline.Digest, l.Cid)
		if err != nil {
			return fmt.Errorf("link %v: %w", l.Cid, err)
		}
		if err := w.want(inside); err != nil {
			return err
		}
	}
	return nil
}

// gatewayRefusal is the error of an answer that is not the content.
func gatewayRefusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what cannot be read is not said
	err := fmt.Errorf("the gateway answers %s: %s", resp.Status, strings.TrimSpace(string(b)))
	switch resp.StatusCode {
	case http.StatusNotFound:
		return &coded{exitNotFound, err}
	case http.StatusGatewayTimeout:
		return &coded{exitTimeout, err}
	}
	return err
}

type countReader struct {
	r io.Reader
	n int64
}

func (r *countReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	return n, err
}

// walk returns the node at path below root; directories may be sharded.
func walk(ctx context.Context, dag ipld.DAGService, root cid.Cid, path []string) (ipld.Node, error) {
	nd, err := dag.Get(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", root, err)
	}
	for _, name := range path {
		d, err := uio.NewDirectoryFromNode(dag, nd)
		if err != nil {
			return nil, notFound("%s: %v is no directory", name, nd.Cid())
		}
		if nd, err = d.Find(ctx, name); err != nil {
			return nil, notFound("no %s in %v: %v", name, root, err)
		}
	}
	return nd, nil
}
