package test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A law says which names of other packages are out of bounds.
type law struct {
	name   string
	banned func(pkg, name string) bool
	strict bool // nothing at all of clocks, locks and the world, and no memory between calls
}

// random are names that draw from the system's randomness whatever they are given.
var random = regexp.MustCompile(`^(Generate|Rand|SignASN1$)`)

// worldly reports whether name of pkg tells a time, a number that nobody else
// gets, an order that is another each time, or reaches out of the program.
func worldly(pkg, name string) bool {
	switch pkg {
	case "time":
		return slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local", "LoadLocation"}, name)
	case "maps":
		return slices.Contains([]string{"Keys", "Values", "All"}, name)
	case "reflect":
		return slices.Contains([]string{"MapKeys", "MapRange", "Seq", "Seq2", "Select"}, name)
	case "fmt":
		return strings.HasPrefix(name, "Print") || strings.Contains(name, "Scan")
	case "crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "github.com/libp2p/go-libp2p/core/crypto":
		return random.MatchString(name) || pkg == "crypto/ecdsa" && name == "Sign"
	case "math/rand", "math/rand/v2", "crypto/rand", "hash/maphash", "os", "os/exec", "os/signal", "os/user", "net", "net/http", "syscall", "runtime", "unsafe",
		"golang.org/x/sync/errgroup":
		return true
	}
	return false
}

var (
	execution = law{"execution", worldly, false}
	rules     = law{"rules", func(pkg, name string) bool {
		return worldly(pkg, name) || slices.Contains([]string{"time", "sync", "sync/atomic", "context", "log", "log/slog", "maps", "reflect", "io/fs", "path/filepath", "runtime/debug"}, pkg)
	}, true}
)

// impurities returns where and how n breaks l.
func (c checked) impurities(n ast.Node, l law) (found []string) {
	say := func(at ast.Node, what string) {
		s := fmt.Sprintf("%s: %s", c.fset.Position(at.Pos()), what)
		if !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "a goroutine")
		case *ast.SelectStmt:
			say(n, "a select")
		case *ast.RangeStmt:
			for _, u := range underlying(c.info.Types[n.X].Type) {
				if _, ok := u.(*types.Map); ok {
					say(n, "a range over a map")
				}
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT || n.Kind == token.IMAG {
				say(n, "the float literal "+n.Value)
			}
			if n.Kind == token.STRING && strings.Contains(n.Value, "%p") {
				say(n, "an address, which differs each time")
			}
		case *ast.AssignStmt:
			for _, x := range n.Lhs {
				c.global(x, l, say)
			}
		case *ast.IncDecStmt:
			c.global(n.X, l, say)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				c.global(n.X, l, say)
			}
		case *ast.Ident:
			if what := l.use(c.info.Uses[n]); what != "" {
				say(n, what)
			}
		}
		if x, ok := n.(ast.Expr); ok {
			if what := unfit(c.info.Types[x].Type); what != "" {
				say(n, what)
			}
		}
		return true
	})
	return found
}

// use says what is wrong with a use of o, or returns "".
func (l law) use(o types.Object) string {
	switch {
	case o == nil:
		return ""
	case o.Pkg() == nil:
		if _, ok := o.(*types.Builtin); ok && (o.Name() == "print" || o.Name() == "println") {
			return "the builtin " + o.Name()
		}
		return ""
	case o.Pkg().Path() == "unsafe", l.banned(o.Pkg().Path(), o.Name()):
		if _, ok := o.(*types.PkgName); !ok {
			return o.Pkg().Path() + "." + o.Name()
		}
	case o.Pkg().Path() == "math":
		if _, ok := o.(*types.Func); ok {
			return "math." + o.Name()
		}
	}
	return ""
}

// global says where x, which is written or whose address is taken, is a variable of a package.
func (c checked) global(x ast.Expr, l law, say func(ast.Node, string)) {
	for l.strict {
		switch e := x.(type) {
		case *ast.ParenExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.StarExpr:
			x = e.X
		case *ast.SelectorExpr:
			if v, ok := c.info.Uses[e.Sel].(*types.Var); ok && !v.IsField() {
				say(e, "a variable of another package that changes: "+e.Sel.Name)
				return
			}
			x = e.X
		case *ast.Ident:
			if v, ok := c.info.Uses[e].(*types.Var); ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
				say(e, "a package variable that changes: "+e.Name)
			}
			return
		default:
			return
		}
	}
}

// underlying returns the types that t may have below its name: those of its
// constraint, if it is a type parameter.
func underlying(t types.Type) (all []types.Type) {
	if t == nil {
		return nil
	}
	if _, param := types.Unalias(t).(*types.TypeParam); !param {
		return []types.Type{t.Underlying()}
	}
	var look func(t types.Type)
	look = func(t types.Type) {
		switch u := t.(type) {
		case *types.Union:
			for term := range u.Terms() {
				look(term.Type())
			}
		default:
			iface, ok := t.Underlying().(*types.Interface)
			if !ok {
				all = append(all, t.Underlying())
				return
			}
			for e := range iface.EmbeddedTypes() {
				look(e)
			}
		}
	}
	look(t)
	return all
}

// unfit says why no value of type t has a place in a rule, or returns "".
func unfit(t types.Type) string {
	switch t := t.(type) {
	case nil:
		return ""
	case *types.Tuple:
		for v := range t.Variables() {
			if what := unfit(v.Type()); what != "" {
				return what
			}
		}
		return ""
	}
	if n, ok := types.Unalias(t).(*types.Named); ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == "math/big" && n.Obj().Name() == "Float" {
		return "a big.Float"
	}
	for _, u := range underlying(t) {
		switch u := u.(type) {
		case *types.Chan:
			return "a channel"
		case *types.Pointer:
			if what := unfit(u.Elem()); what == "a big.Float" {
				return what
			}
		case *types.Basic:
			switch {
			case u.Info()&(types.IsFloat|types.IsComplex) != 0:
				return "a " + u.Name()
			case u.Kind() == types.Uintptr || u.Kind() == types.UnsafePointer:
				return "an address"
			}
		}
	}
	return ""
}

// TestPurityIsNotFooled keeps the checks above from passing by blindness: each
// source smuggles one thing in.
func TestPurityIsNotFooled(t *testing.T) {
	for _, c := range []struct{ name, imports, src, want string }{
		{"nothing", "slices", "func f(m map[string]int, s []int) (n int) { slices.Sort(s); for _, x := range s { n += x }; return n + len(m) }", ""},
		{"a map", "", "func f(m map[string]int) { for range m {} }", "range over a map"},
		{"a named map", "", "type bag map[string]int; func f(m bag) { for range m {} }", "range over a map"},
		{"an alias of a named map", "", "type bag map[string]int; type sack = bag; func f(m sack) { for range m {} }", "range over a map"},
		{"a map converted", "", "type bag map[string]int; func f(m bag) { for range map[string]int(m) {} }", "range over a map"},
		{"a map of a closure", "", "func f(m map[string]int) func() { return func() { for range (func() map[string]int { return m })() {} } }", "range over a map"},
		{"a map in a struct", "", "type s struct{ m map[string]int }; func f(x *s) { for range x.m {} }", "range over a map"},
		{"a map by type parameter", "", "func f[M ~map[string]int](m M) { for range m {} }", "range over a map"},
		{"a map by a constraint's constraint", "", "type a interface{ ~map[string]int }; type b interface{ a }; func f[M b](m M) { for range m {} }", "range over a map"},
		{"keys", "maps", "func f(m map[string]int) { for range maps.Keys(m) {} }", "maps.Keys"},
		{"keys as a value", "maps", "func f(m map[string]int) { k := maps.Keys[map[string]int]; k(m)(func(string) bool { return true }) }", "maps.Keys"},
		{"keys by reflection", "reflect", "func f(m map[string]int) { for range reflect.ValueOf(m).MapKeys() {} }", "reflect.MapKeys"},
		{"a clock", "time", "func f() int64 { return time.Now().Unix() }", "time.Now"},
		{"a clock renamed", "t time", "func f() int64 { return t.Now().Unix() }", "time.Now"},
		{"a clock without a name", ". time", "func f() int64 { return Now().Unix() }", "time.Now"},
		{"a clock as a value", "time", "var now = time.Now; func f() int64 { return now().Unix() }", "time.Now"},
		{"a goroutine", "", "func f() { go func() {}() }", "a goroutine"},
		{"a goroutine of a group", "golang.org/x/sync/errgroup", "func f() { var g errgroup.Group; g.Go(func() error { return nil }) }", "errgroup.Go"},
		{"a timer's goroutine", "time", "func f() { time.AfterFunc(0, func() {}) }", "time.AfterFunc"},
		{"a channel", "", "func f() { c := make(chan int, 1); close(c) }", "a channel"},
		{"a select", "", "func f() { select {} }", "a select"},
		{"a float", "", "func f(x int) int { return int(float64(x) / 3) }", "a float64"},
		{"a float renamed", "", "type real = float64; func f(x int) int { return int(real(x)) }", "a float64"},
		{"a named float", "", "type real float32; func f(r real) real { return r + r }", "a float32"},
		{"a float by inference", "strconv", `func f(s string) error { _, err := strconv.ParseFloat(s, 64); return err }`, "a float64"},
		{"a float literal", "", "const third = int64(1e3); func f() int64 { return third }", "float literal"},
		{"a float by type parameter", "", "func f[F ~float64](x F) F { return x + x }", "a float64"},
		{"a float's bits", "math", "func f(g func(func(uint64) float64)) { g(math.Float64frombits) }", "math.Float64frombits"},
		{"a complex number", "", "func f() int { return len([]complex64{}) }", "a complex64"},
		{"a big float", "math/big", "func f(x *big.Int) { new(big.Float).SetInt(x) }", "a big.Float"},
		{"integer limits", "math", "func f() uint64 { return math.MaxUint64 }", ""},
		{"randomness", "math/rand/v2", "func f() int { return rand.IntN(5) }", "math/rand/v2.IntN"},
		{"randomness without a reader", "crypto/ed25519", "func f() { ed25519.GenerateKey(nil) }", "ed25519.GenerateKey"},
		{"a random seed", "hash/maphash", "func f() uint64 { return maphash.String(maphash.MakeSeed(), `x`) }", "maphash.MakeSeed"},
		{"a random signature", "crypto/ecdsa", "func f(k *ecdsa.PrivateKey) { ecdsa.SignASN1(nil, k, nil) }", "ecdsa.SignASN1"},
		{"an address in words", "fmt", "func f(x *int) string { return fmt.Sprintf(`%p`, x) }", "an address"},
		{"an address", "unsafe", "func f(x *int) bool { return uintptr(unsafe.Pointer(x))%16 == 0 }", "unsafe.Pointer"},
		{"output", "fmt", "func f() { fmt.Println() }", "fmt.Println"},
		{"output by a builtin", "", "func f() { println() }", "println"},
		{"the world", "os", "func f() string { return os.Getenv(`X`) }", "os.Getenv"},
		{"memory", "", "var n int; func f() int { n++; return n }", "package variable that changes: n"},
		{"memory in a map", "", "var seen = map[int]bool{}; func f(x int) { seen[x] = true }", "package variable that changes: seen"},
		{"memory in a field", "", "var s struct{ n int }; func f() { (s).n = 1 }", "package variable that changes: s"},
		{"memory by its address", "", "var n int; func f() { p := &n; *p = 1 }", "package variable that changes: n"},
		{"a lock", "sync", "func f(m *sync.Mutex) { m.Lock() }", "sync.Lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := "package p\n\n"
			var imports []string
			if c.imports != "" {
				name, path, named := strings.Cut(c.imports, " ")
				if !named {
					name, path = "", name
				}
				src += fmt.Sprintf("import %s %q\n\n", name, path)
				imports = []string{path}
			}
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/p.go", []byte(src+c.src+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			p := check(t, room{ImportPath: "p", Dir: dir, GoFiles: []string{"p.go"}, Imports: imports})
			found := p.impurities(p.files[0], rules)
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("found %q in %q, want %q", found, c.src, c.want)
			}
		})
	}
}
