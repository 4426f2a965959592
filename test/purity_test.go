package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pure are the rooms of rules: values in, values out.
var pure = []string{"coin", "credit", "mpow", "mpow/dag", "mpow/quote", "market", "chain/gpos"}

// ruleImports are all packages that rules may import beside each other: a new
// one is looked at for clocks, randomness and order before it is named here.
var ruleImports = strings.Fields(`
	bytes cmp crypto/ecdsa crypto/ed25519 crypto/elliptic crypto/sha256 crypto/sha3 encoding/base64 encoding/binary encoding/hex encoding/json
	errors fmt hash math math/big math/bits slices strconv strings
	github.com/fxamacker/cbor/v2 github.com/ipfs/boxo/verifcid github.com/ipfs/go-cid github.com/ipld/go-codec-dagpb
	github.com/ipld/go-ipld-prime/codec/dagcbor github.com/ipld/go-ipld-prime/codec/dagjson github.com/ipld/go-ipld-prime/datamodel
	github.com/ipld/go-ipld-prime/linking/cid github.com/ipld/go-ipld-prime/node/basicnode github.com/ipld/go-ipld-prime/traversal
	github.com/libp2p/go-libp2p/core/crypto github.com/libp2p/go-libp2p/core/peer github.com/multiformats/go-multihash`)

// TestPure forbids what would make two nodes disagree in a rule package: clocks,
// floats, map order, randomness, goroutines, the world, and memory of its own.
func TestPure(t *testing.T) {
	for _, name := range pure {
		r := roomOf(t, name)
		if extra := slices.Concat(r.CgoFiles, r.SFiles, r.IgnoredGoFiles); len(extra) > 0 {
			t.Errorf("rule package %s has files that build elsewhere or are not Go: %v", name, extra)
		}
		for _, imp := range r.Imports {
			if ours, ok := strings.CutPrefix(imp, module+"/"); ok && slices.Contains(pure, ours) {
				continue
			}
			if !slices.Contains(ruleImports, imp) {
				t.Errorf("rule package %s imports %s, which is not among ruleImports", name, imp)
			}
		}
		c := check(t, r)
		for _, f := range c.files {
			for _, what := range c.impurities(f, rules) {
				t.Errorf("%s in rule package %s", what, name)
			}
		}
	}
}

// TestExecutionIsPure forbids the same in those functions of chain that have the
// state in hand, as receiver or parameter, and in all that they call there: they
// run in blocks. The time of a block comes in as a value.
func TestExecutionIsPure(t *testing.T) {
	c := check(t, roomOf(t, "chain"))
	reached := c.reached(c.holdsState)
	for _, fn := range reached {
		for _, what := range c.impurities(fn, execution) {
			t.Errorf("%s in %s, which runs in blocks", what, fn.Name.Name)
		}
	}
	if len(reached) < 250 {
		t.Errorf("found %d functions of chain that run in blocks; it has more", len(reached))
	}
}

// reached returns the functions that root picks and those of the package that
// they name, and so on.
func (c checked) reached(root func(*ast.FuncDecl) bool) (found []*ast.FuncDecl) {
	bodies := map[types.Object]*ast.FuncDecl{}
	seen := map[*ast.FuncDecl]bool{}
	add := func(fn *ast.FuncDecl) {
		if fn != nil && !seen[fn] {
			seen[fn] = true
			found = append(found, fn)
		}
	}
	for _, f := range c.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				bodies[c.info.Defs[fn.Name]] = fn
				if root(fn) {
					add(fn)
				}
			}
		}
	}
	for i := 0; i < len(found); i++ {
		ast.Inspect(found[i], func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				if fn, ok := c.info.Uses[id].(*types.Func); ok {
					add(bodies[fn.Origin()])
				}
			}
			return true
		})
	}
	return found
}

func roomOf(t *testing.T, name string) room {
	t.Helper()
	for _, r := range listRooms(t) {
		if r.name() == name {
			return r
		}
	}
	t.Fatalf("there is no package %s", name)
	return room{}
}

// A checked package knows the type of each expression and the meaning of each name.
type checked struct {
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
}

// check type-checks r.
func check(t *testing.T, r room) checked {
	t.Helper()
	exports := exportData(t, r.Imports)
	c := checked{fset: token.NewFileSet(), info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}}
	for _, name := range r.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(r.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, f)
	}
	conf := types.Config{Importer: importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		file, ok := exports[path]
		if !ok {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(file)
	})}
	if _, err := conf.Check(r.ImportPath, c.fset, c.files, c.info); err != nil {
		t.Fatalf("type-check %s: %v", r.ImportPath, err)
	}
	return c
}

// exportData returns the compiler's export file of every package below imports.
func exportData(t *testing.T, imports []string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if len(imports) == 0 {
		return files
	}
	args := append([]string{"list", "-export", "-deps", "-json=ImportPath,Export"}, imports...)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatalf("go list -export: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ ImportPath, Export string }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
	}
}

// holdsState reports whether fn has a *state of chain, or what it reads from.
func (c checked) holdsState(fn *ast.FuncDecl) bool {
	sig := c.info.Defs[fn.Name].Type().(*types.Signature)
	vars := slices.Collect(sig.Params().Variables())
	if sig.Recv() != nil {
		vars = append(vars, sig.Recv())
	}
	return slices.ContainsFunc(vars, func(v *types.Var) bool {
		typ := types.Unalias(v.Type())
		if p, ok := typ.(*types.Pointer); ok {
			typ = types.Unalias(p.Elem())
		}
		n, ok := typ.(*types.Named)
		return ok && slices.Contains([]string{"state", "source"}, n.Obj().Name())
	})
}
