package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A manifest is what a tree holds: the hash and length of each regular file by its path below the tree, with slashes. An
// only file has the path "".
type manifest map[string]fileSum

type fileSum struct {
	sum  [sha256.Size]byte
	size int64
}

// manifestOf reads the file or directory at path.
func manifestOf(path string) (manifest, error) {
	m := manifest{}
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		if rel == "." {
			rel = ""
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		m[filepath.ToSlash(rel)] = fileSum{[sha256.Size]byte(h.Sum(nil)), n}
		return err
	})
	if err == nil && len(m) == 0 {
		err = fmt.Errorf("no files in %s", path)
	}
	return m, err
}

func (m manifest) bytes() (n int64) {
	for _, f := range m {
		n += f.size
	}
	return n
}

// paths lists the largest file first, since it is what is timed, then the others by name.
func (m manifest) paths() []string {
	p := sortedKeys(m)
	sort.SliceStable(p, func(i, j int) bool { return m[p[i]].size > m[p[j]].size })
	if len(p) > 1 {
		sort.Strings(p[1:])
	}
	return p
}

// generated is the name of the file that the demo adds to the checkout.
const generated = "generated.bin"

// makeTree fills dir with the files of the checkout around the working directory and a generated file of size bytes, the
// same each time.
func makeTree(ctx context.Context, dir string, size uint64) error {
	root, list, err := checkout(ctx)
	if err != nil {
		return err
	}
	for _, rel := range list {
		if err := copyFile(filepath.Join(root, rel), filepath.Join(dir, rel)); err != nil {
			return err
		}
	}
	return generate(filepath.Join(dir, generated), size)
}

// checkout lists the files of the project's checkout: what git tracks, or, in a copy without git, all but bin and hidden
// directories. Outside of a checkout there are none.
func checkout(ctx context.Context) (root string, list []string, err error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", nil, err
	}
	for root = wd; ; root = filepath.Dir(root) {
		if b, err := os.ReadFile(filepath.Join(root, "go.mod")); err == nil && bytes.Contains(b, []byte("module github.com/lode-node/lode")) {
			break
		}
		if root == filepath.Dir(root) {
			return wd, nil, nil
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z").Output(); err == nil && len(out) > 0 {
		for _, rel := range strings.Split(strings.Trim(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(root, rel)); err == nil && info.Mode().IsRegular() {
				list = append(list, rel)
			}
		}
		return root, list, nil
	}
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && p != root && (e.Name() == "bin" || strings.HasPrefix(e.Name(), ".")) {
			return filepath.SkipDir
		}
		if e.Type().IsRegular() {
			rel, err := filepath.Rel(root, p)
			list = append(list, rel)
			return err
		}
		return nil
	})
	return root, list, err
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// generate writes size bytes that do not compress and are the same each time.
func generate(path string, size uint64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	src := rand.NewChaCha8([32]byte([]byte("lode demo, file of random bytes.")))
	_, err = io.CopyN(f, src, int64(size))
	return errors.Join(err, f.Close())
}

// A fetched tells how a tree came through a gateway.
type fetched struct {
	ttfb    time.Duration // of the largest file, asked first
	took    time.Duration
	bytes   int64
	files   int
	holders []string // from the first answer's headers
}

// fetchTree asks the gateway for each file of m below root, the largest first and alone, and compares what comes.
func fetchTree(ctx context.Context, gateway, root string, m manifest, progress func(bytes int64)) (fetched, error) {
	start := time.Now()
	var f fetched
	var total atomic.Int64
	paths := m.paths()
	one := func(ctx context.Context, i int) error {
		return fetchFile(ctx, gateway, root, paths[i], m[paths[i]], func(n int) { progress(total.Add(int64(n))) }, func(h http.Header, first time.Duration) error {
			if i > 0 {
				return nil
			}
			f.ttfb = first
			for _, line := range h.Values("Lode-Holders") { // "12D3KooW…; kind=simulated"
				id, _, _ := strings.Cut(line, ";")
				f.holders = append(f.holders, strings.TrimSpace(id))
			}
			if h.Get("Lode-Simulated") != "true" {
				return errors.New("the answer does not say that the holders are simulated")
			}
			return nil
		})
	}
	if err := one(ctx, 0); err != nil {
		return f, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := 1; i < len(paths); i++ {
		g.Go(func() error { return one(ctx, i) })
	}
	err := g.Wait()
	f.took, f.bytes, f.files = time.Since(start), total.Load(), len(paths)
	return f, err
}

// fetchFile gets one file and compares it with what it should be.
func fetchFile(ctx context.Context, gateway, root, path string, want fileSum, progress func(n int), answer func(http.Header, time.Duration) error) error {
	u := url.URL{Path: strings.TrimSuffix("/ipfs/"+root+"/"+path, "/")}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway+u.EscapedPath(), nil)
	if err != nil {
		return err
	}
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("get %s: %w", u.Path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %w", u.Path, gatewayRefusal(resp))
	}
	h, n, buf := sha256.New(), int64(0), make([]byte, 64<<10)
	for first := true; ; first = false {
		k, err := resp.Body.Read(buf)
		if first {
			if err := answer(resp.Header, time.Since(start)); err != nil {
				return fmt.Errorf("get %s: %w", u.Path, err)
			}
		}
		h.Write(buf[:k])
		n += int64(k)
		progress(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("get %s: broken off after %d of %d bytes: %w", u.Path, n, want.size, err)
		}
	}
	if [sha256.Size]byte(h.Sum(nil)) != want.sum {
		return fmt.Errorf("get %s: %d bytes came that are not the %d of the source", u.Path, n, want.size)
	}
	return nil
}
