package mpow_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
	mh "github.com/multiformats/go-multihash"
)

const testChain = "dev-test"

var (
	testKey     = ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	otherKey    = ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", 32)))
	testAccount = mpow.Account("\x00\x24\x08\x01\x12\x20" + strings.Repeat("a", 32))
)

func params(t testing.TB) mpow.Params {
	p, err := mpow.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return p
}

// file returns a file of its own name and size.
func file(name string, size uint64) mpow.File {
	sum, err := mh.Sum([]byte(name), mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return mpow.File{Root: cid.NewCidV1(cid.DagProtobuf, sum), Size: size}
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

func seed(s mpow.Slot) [32]byte { return sha256.Sum256([]byte{byte(s), byte(s >> 8)}) }

func at(p mpow.Params, s mpow.Slot) mpow.Context {
	return mpow.Context{ChainID: testChain, Height: p.Start(s) + 3, Slot: s, Seed: seed(s)}
}

// node returns a registered node that has held files since slot 5.
func node(t testing.TB, p mpow.Params, files ...mpow.File) mpow.Node {
	n := mpow.Node{Account: testAccount, Key: public(testKey), Kind: mpow.KindSimulated, AttestedUntil: 100}
	n.FilesRoot = n.Files.Digest()
	r := report(n, 5)
	r.Added = append(r.Added, files...)
	n, _, err := p.Accept(n, sign(t, settle(n, r)), at(p, 5))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// report returns n's honest report of slot s in which nothing changes.
func report(n mpow.Node, s mpow.Slot) mpow.Report {
	return mpow.Report{
		ChainID: testChain, Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: s, Seed: seed(s),
		SRDBytes: n.SRDBytes, FileBytes: n.FileBytes, FilesRoot: n.FilesRoot,
	}
}

// settle sets the sums of r that its lists make.
func settle(n mpow.Node, r mpow.Report) mpow.Report {
	r.FileBytes = n.FileBytes
	for _, f := range r.Added {
		r.FileBytes += f.Size
		n.Files.AddFile(f)
	}
	for _, f := range r.Dropped {
		r.FileBytes -= f.Size
		n.Files.SubFile(f)
	}
	r.FilesRoot = n.Files.Digest()
	return r
}

func sign(t testing.TB, r mpow.Report) mpow.Signed {
	s, err := r.Sign(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAReportIsTheRecord: what an accepted report says is what the record then says,
// field by field (spec §3.4 to §3.7).
func TestAReportIsTheRecord(t *testing.T) {
	p := params(t)
	n := node(t, p, file("a", 1000))
	n.Power += 70 // the market's bonus stays
	r := report(n, 8)
	r.Added, r.SRDBytes = []mpow.File{file("b", 200)}, 3*p.SRDUnit
	r.SRDRoot, r.StateRoot = mpow.Hash{1}, mpow.Hash{2}
	r = settle(n, r)
	s := sign(t, r)
	want := n
	want.Files.AddFile(file("b", 200))
	want.Seq, want.Last, want.LastSlot, want.Reports, want.Misses, want.PunishedUntil = 2, s.Hash(), 8, 2, 2, 7+mpow.Slot(p.PunishSlots)
	want.SRDBytes, want.FileBytes, want.Power = 3*p.SRDUnit, 1200, 1270
	want.SRDRoot, want.FilesRoot, want.StateRoot = mpow.Hash{1}, want.Files.Digest(), mpow.Hash{2}
	got, c, err := p.Accept(n, s, at(p, 8))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("accepted as %+v, %v, want %+v", got, err, want)
	}
	if c.Missed != 2 || c.Counted || c.Bytes != 0 || len(c.Added) != 1 || len(c.Dropped)+len(c.Listed) != 0 {
		t.Errorf("change %+v, want two slots missed and b added", c)
	}
}

// The first row is valid; each other breaks one thing (spec §3.5, §3.6).
func TestAcceptRefusesEachCorruption(t *testing.T) {
	p := params(t)
	p.ReportFiles = 4
	a, b, c := file("a", 1000), file("b", 2000), file("c", 3000)
	base := node(t, p, a, b)
	rows := []struct {
		name string
		mend func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context)
		want string // part of the error; empty: accepted
	}{
		{"valid", nil, ""},
		{"another chain", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.ChainID = "dev-other" }, "chain \"dev-other\""},
		{"another account", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Account += "x" }, "account"},
		{"hardware's domain", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Kind = mpow.KindDCAP }, "signature"},
		{"a simulated key as hardware", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { n.Kind = mpow.KindDCAP }, "signature"},
		{"simulated not allowed", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { p.AllowSimulated = false }, "§3.3"},
		{"stale slot", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Slot = 5; r.Seed = seed(5) }, "the current one is 6"},
		{"slot to come", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Slot = 7; r.Seed = seed(7) }, "the current one is 6"},
		{"wrong seed", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Seed[0] ^= 1 }, "seed"},
		{"sequence skipped", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Seq++ }, "sequence 3, want 2"},
		{"sequence again", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Seq-- }, "sequence 1, want 2"},
		{"another head", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Prev[3] ^= 1 }, "builds on"},
		{"bytes too many", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.FileBytes++ }, "file bytes"},
		{"bytes beyond all", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.FileBytes = 1 << 60 }, "file bytes"},
		{"more files than a node may have", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			n.FileBytes = mpow.MaxFileBytes
			*r = settle(*n, *r)
		}, "at most 9007199254740991"},
		{"files root of another set", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.FilesRoot[9] ^= 1 }, "files root"},
		{"added and not said", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Added = nil
			r.FileBytes -= c.Size
		}, "files root"},
		{"sizes swapped", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Added[0].Size, r.Dropped[0].Size = r.Added[0].Size-1, r.Dropped[0].Size-1
		}, "files root"},
		{"root added twice", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Added = append(r.Added, c)
			*r = settle(*n, *r)
		}, "twice"},
		{"root added and listed", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Listed = []mpow.File{c} }, "twice"},
		{"root dropped and added", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Added = append(r.Added, a)
			*r = settle(*n, *r)
		}, "twice"},
		{"dropped more than held", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Dropped = append(r.Dropped, file("never held", 1<<30))
		}, "file bytes"},
		{"too many added and listed", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Listed = []mpow.File{file("1", 1), file("2", 1), file("3", 1), file("4", 1)}
		}, "at most 4"},
		{"too many dropped", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Dropped = []mpow.File{file("1", 1), file("2", 1), file("3", 1), file("4", 1), file("5", 1)}
		}, "at most 4"},
		{"file too large", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			r.Added[0].Size = p.MaxFileSize + 1
			*r = settle(*n, *r)
		}, "at most"},
		{"part of a unit", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.SRDBytes++ }, "units"},
		{"too much random data", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.SRDBytes = 1 << 51 }, "units"},
		{"lapsed", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) {
			n.AttestedUntil = 5
			p.GraceSlots = 0
		}, "lapsed"},
		{"another key", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { n.Key = public(otherKey) }, "signature"},
		{"no key", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { n.Key = nil }, "key of 0 bytes"},
		{"sent with another signature", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { s.Sig = make([]byte, 64) }, "signature"},
		{"sent with a byte behind", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { s.Body = []byte{0} }, "report"},
		{"slot 0", func(r *mpow.Report, n *mpow.Node, s *mpow.Signed, now *mpow.Context) { r.Slot, now.Slot = 0, 0 }, "slot 0"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			saved := p
			defer func() { p = saved }()
			n, now, override := base, at(p, 6), mpow.Signed{}
			r := report(n, 6)
			r.Added, r.Dropped = []mpow.File{c}, []mpow.File{a}
			r = settle(n, r)
			if row.mend != nil {
				row.mend(&r, &n, &override, &now)
			}
			s := sign(t, r)
			if override.Sig != nil {
				s.Sig = override.Sig
			}
			if override.Body != nil {
				s.Body = append(s.Body, override.Body...)
			}
			got, change, err := p.Accept(n, s, now)
			if row.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if got.FileBytes != 5000 || got.Seq != 2 || got.Last != s.Hash() || got.LastSlot != 6 || !change.Counted || change.Bytes != 5000 {
					t.Fatalf("node %+v, change %+v", got, change)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got error %v, want one with %q", err, row.want)
			}
			if !reflect.DeepEqual(got, n) {
				t.Fatal("the node changed with an error")
			}
		})
	}
}

// What stands at its bound is accepted (spec §3.5).
func TestReportsMayFillEachBound(t *testing.T) {
	p := params(t)
	p.ReportFiles = 2
	a, b := file("a", p.MaxFileSize), file("b", 0)
	for name, mend := range map[string]func(r *mpow.Report, n *mpow.Node){
		"added":            func(r *mpow.Report, n *mpow.Node) { r.Added = []mpow.File{file("c", p.MaxFileSize), file("d", 1)} },
		"added and listed": func(r *mpow.Report, n *mpow.Node) { r.Added, r.Listed = []mpow.File{file("c", 1)}, []mpow.File{a} },
		"dropped":          func(r *mpow.Report, n *mpow.Node) { r.Dropped = []mpow.File{a, b} },
		"random data":      func(r *mpow.Report, n *mpow.Node) { r.SRDBytes = 1<<51 - p.SRDUnit },
		"files":            func(r *mpow.Report, n *mpow.Node) { n.FileBytes = 1<<53 - 2; r.Added = []mpow.File{file("c", 1)} },
	} {
		n := node(t, p, a, b)
		r := report(n, 6)
		mend(&r, &n)
		if _, _, err := p.Accept(n, sign(t, settle(n, r)), at(p, 6)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecondReportOfASlotChangesNothing(t *testing.T) { // spec §3.5
	p := params(t)
	n := node(t, p, file("a", 10))
	r := report(n, 5)
	got, c, err := p.Accept(n, sign(t, r), at(p, 5))
	if err != nil || !c.Repeated || !reflect.DeepEqual(got, n) {
		t.Fatalf("got %+v, repeated %v, error %v", got, c.Repeated, err)
	}
}

func TestMissesPunish(t *testing.T) { // spec §3.7
	p := params(t)
	p.PunishSlots = 2
	n := node(t, p, file("a", 10))
	for _, row := range []struct {
		slot    mpow.Slot
		missed  uint64
		until   mpow.Slot
		counted bool
	}{
		{6, 0, 0, true},
		{9, 2, 10, false}, // 7 and 8 are missed: nothing counts in 9 and 10
		{10, 0, 10, false},
		{11, 0, 10, true},
		{13, 1, 14, false},
		{15, 1, 16, false}, // a miss while punished lengthens it
		{16, 0, 16, false},
		{17, 0, 16, true},
	} {
		var c mpow.Change
		var err error
		n, c, err = p.Accept(n, sign(t, report(n, row.slot)), at(p, row.slot))
		if err != nil {
			t.Fatal(err)
		}
		if c.Missed != row.missed || n.PunishedUntil != row.until || c.Counted != row.counted || (c.Bytes == 10) != row.counted {
			t.Errorf("slot %d: missed %d, until %d, counted %v of %d bytes; want %+v", row.slot, c.Missed, n.PunishedUntil, c.Counted, c.Bytes, row)
		}
	}
	if n.Misses != 4 || n.Reports != 9 {
		t.Errorf("%d misses, %d reports; want 4, 9", n.Misses, n.Reports)
	}
}

// A slow twin keeps the whole set of files; Accept's sums must follow it through
// any history (spec §3.6, §9.3).
func TestTransitionFollowsTheSlowTwin(t *testing.T) {
	p := params(t)
	rng := rand.New(rand.NewSource(1))
	n := node(t, p)
	twin := map[string]mpow.File{}
	for slot := mpow.Slot(6); slot < 90; slot++ {
		r := report(n, slot)
		for name, f := range twin {
			if rng.Intn(4) == 0 {
				r.Dropped = append(r.Dropped, f)
				delete(twin, name)
			}
		}
		for range rng.Intn(4) {
			f := file(string(rune(rng.Int31n(1<<20)))+"x", uint64(rng.Intn(1<<20)))
			if _, ok := twin[f.Root.String()]; ok {
				continue
			}
			twin[f.Root.String()] = f
			r.Added = append(r.Added, f)
		}
		var err error
		if n, _, err = p.Accept(n, sign(t, settle(n, r)), at(p, slot)); err != nil {
			t.Fatalf("slot %d: %v", slot, err)
		}
		var sum uint64
		var set mpow.LtHash
		for _, f := range twin {
			sum += f.Size
			set.AddFile(f)
		}
		if n.FileBytes != sum || n.FilesRoot != set.Digest() || n.Power != sum {
			t.Fatalf("slot %d: %d bytes, power %d, root %v; the twin has %d, %x", slot, n.FileBytes, n.Power, n.FilesRoot, sum, set.Digest())
		}
	}
}

func TestBonusStaysWithTheMarket(t *testing.T) { // spec §5.7
	p := params(t)
	n := node(t, p, file("a", 10))
	n.Power += 7
	r := report(n, 6)
	r.Added = []mpow.File{file("b", 100)}
	n, c, err := p.Accept(n, sign(t, settle(n, r)), at(p, 6))
	if err != nil || n.Power != 117 || c.Bytes != 117 {
		t.Fatalf("power %d, workload %d, error %v; want 117", n.Power, c.Bytes, err)
	}
}
