// Package test checks the house from outside: who may import whom, the purity
// of the rules, the two walks, liars, replay, and what the documents claim.
package test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/lode-node/lode"

// mayImport is the plan of the house: for each room, the rooms that it may
// import (docs/tour.md has the picture).
var mayImport = map[string]string{
	"coin":                 "",
	"credit":               "coin",
	"mpow":                 "",
	"mpow/dag":             "mpow",
	"mpow/quote":           "",
	"mpow/quote/quotetest": "mpow/quote",
	"market":               "coin",
	"chain/gpos":           "coin",
	"chain":                "coin credit market mpow mpow/dag mpow/quote chain/gpos",
	"bitswap":              "coin credit",
	"enclave/prover":       "mpow mpow/dag",
	"enclave":              "mpow",
	"gateway":              "",
	"node":                 "bitswap chain chain/gpos coin credit enclave enclave/prover gateway market mpow",
	"cmd/lode":             "bench bench/report bitswap chain chain/gpos coin credit enclave gateway market mpow mpow/quote node",
	"cmd/prover":           "enclave/prover mpow",
	"bench":                "bitswap chain chain/gpos coin credit enclave gateway market mpow node",
	"bench/report":         "bench",
	"test":                 "bench bitswap chain chain/gpos coin credit enclave enclave/prover gateway market mpow node",
}

// oneDoor names, for each outside world, the rooms whose code may touch it.
var oneDoor = map[string]string{
	"github.com/cometbft/":                "chain",
	"github.com/cosmos/iavl":              "chain",
	"github.com/ipfs/boxo/bitswap":        "bitswap bench",
	"github.com/ipfs/boxo/gateway":        "gateway",
	"github.com/edgelesssys/ego":          "enclave/prover",
	"github.com/spf13/cobra":              "cmd/lode",
	"github.com/libp2p/go-libp2p-kad-dht": "node",
	"gonum.org/v1/plot":                   "bench/report",
}

// trusted are the rooms whose outside imports are counted by name: what is
// measured in an enclave, and money.
var trusted = map[string][]string{
	"coin": {},
	"mpow": {"github.com/ipfs/go-cid", "github.com/fxamacker/cbor/v2"},
	// What decides whether hardware is believed: the standard library alone.
	"mpow/quote": {},
}

// A room is one package, as the go command lists it.
type room struct {
	ImportPath, Dir         string
	GoFiles, IgnoredGoFiles []string
	CgoFiles, SFiles        []string
	Imports                 []string
	TestImports             []string
}

// name returns the room's folder below the module.
func (r room) name() string { return strings.TrimPrefix(r.ImportPath, module+"/") }

// rooms lists every package of the module once.
var rooms = sync.OnceValues(func() ([]room, error) {
	out, err := exec.Command("go", "list", "-json", module+"/...").Output()
	if err != nil {
		return nil, err
	}
	var all []room
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var r room
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
})

func listRooms(t *testing.T) []room {
	t.Helper()
	all, err := rooms()
	if err != nil || len(all) == 0 {
		t.Fatalf("go list: %d rooms, %v", len(all), err)
	}
	return all
}

func TestPlan(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range listRooms(t) {
		plan, planned := mayImport[r.name()]
		if !planned {
			t.Errorf("%s is not in the plan of the house", r.name())
			continue
		}
		seen[r.name()] = true
		allowed := strings.Fields(plan)
		for _, imp := range r.Imports {
			ours, ok := strings.CutPrefix(imp, module+"/")
			if ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the plan does not allow", r.name(), ours)
			}
		}
	}
	for _, must := range []string{"coin", "credit", "mpow", "mpow/dag", "mpow/quote", "market", "chain/gpos", "chain", "bitswap", "enclave", "enclave/prover", "gateway", "node", "cmd/lode", "cmd/prover"} {
		if !seen[must] {
			t.Errorf("the plan has a room %s that is not built", must)
		}
	}
}

func TestOneDoor(t *testing.T) {
	for _, r := range listRooms(t) {
		if r.name() == "test" {
			continue
		}
		for _, imp := range r.Imports {
			for world, doors := range oneDoor {
				if strings.HasPrefix(imp, world) && !slices.Contains(strings.Fields(doors), r.name()) {
					t.Errorf("%s imports %s; the door to it is %s", r.name(), imp, doors)
				}
			}
		}
		if allowed, ok := trusted[r.name()]; ok {
			for _, imp := range r.Imports {
				if strings.Contains(imp, ".") && !slices.Contains(allowed, imp) {
					t.Errorf("%s imports %s; it is trusted code and may import only %v", r.name(), imp, allowed)
				}
			}
		}
	}
}

type parsed struct {
	fset *token.FileSet
	file *ast.File
}

// parse reads the files of r that build without tags.
func parse(t *testing.T, r room) []parsed {
	t.Helper()
	fset := token.NewFileSet()
	var all []parsed
	for _, name := range r.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(r.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parsed{fset, f})
	}
	return all
}

// TestEachRoomSaysWhatItIs: a package comment, in the file of the room's name
// or in main.go, and no file so long that nobody reads it.
func TestEachRoomSaysWhatItIs(t *testing.T) {
	for _, r := range listRooms(t) {
		if len(r.GoFiles) == 0 {
			continue
		}
		documented := ""
		for _, f := range parse(t, r) {
			name := filepath.Base(f.fset.Position(f.file.Pos()).Filename)
			if f.file.Doc != nil && strings.TrimSpace(f.file.Doc.Text()) != "" {
				documented = name
			}
			if lines := f.fset.File(f.file.Pos()).LineCount(); lines > 600 {
				t.Errorf("%s/%s has %d lines; look for the second subject in it", r.name(), name, lines)
			}
		}
		if want := path.Base(r.name()) + ".go"; documented == "" {
			t.Errorf("%s has no package comment (it belongs into %s)", r.name(), want)
		}
	}
}

// TestTestsDoNotSleep: a test waits for an event or uses testing/synctest.
func TestTestsDoNotSleep(t *testing.T) {
	root := listRooms(t)[0]
	top := strings.TrimSuffix(root.Dir, filepath.FromSlash(root.name()))
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, 0)
		if err != nil {
			return err
		}
		synctest := slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || synctest || s.Sel.Name != "Sleep" {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
				t.Errorf("%s sleeps", fset.Position(n.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
