package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestNoMapRange forbids every loop over a map in a rule package: map order
// would be a fork. A rule that holds a map sorts its keys first.
func TestNoMapRange(t *testing.T) {
	byName := map[string]room{}
	for _, r := range listRooms(t) {
		byName[r.name()] = r
	}
	for _, name := range pure {
		r, ok := byName[name]
		if !ok {
			t.Errorf("no rule package %s", name)
			continue
		}
		for _, pos := range mapRanges(t, r) {
			t.Errorf("%s: a range over a map in rule package %s", pos, name)
		}
	}
}

// TestNoMapRangeSeesOne keeps the check above from passing by blindness.
func TestNoMapRangeSeesOne(t *testing.T) {
	dir := t.TempDir()
	src := "package p\n\nfunc f(m map[string]int) (n int) {\n\tfor range m {\n\t\tn++\n\t}\n\treturn n\n}\n"
	if err := os.WriteFile(dir+"/p.go", []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	got := mapRanges(t, room{ImportPath: "p", Dir: dir, GoFiles: []string{"p.go"}})
	if len(got) != 1 {
		t.Fatalf("found %d ranges over maps in a package with one", len(got))
	}
}

// mapRanges type-checks r and returns where it ranges over a map.
func mapRanges(t *testing.T, r room) []token.Position {
	t.Helper()
	exports := exportData(t, r.Imports)
	fset := token.NewFileSet()
	files := parseInto(t, fset, r)
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		file, ok := exports[path]
		if !ok {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(file)
	})}
	if _, err := conf.Check(r.ImportPath, fset, files, info); err != nil {
		t.Fatalf("type-check %s: %v", r.ImportPath, err)
	}
	var found []token.Position
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			loop, ok := n.(*ast.RangeStmt)
			if !ok {
				return true
			}
			if _, isMap := info.Types[loop.X].Type.Underlying().(*types.Map); isMap {
				found = append(found, fset.Position(loop.Pos()))
			}
			return true
		})
	}
	return found
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
