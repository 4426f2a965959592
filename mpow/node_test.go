package mpow_test

import (
	"crypto/ed25519"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

func register(t testing.TB, chainID string, acct mpow.Account, key ed25519.PrivateKey, height int64, hash [32]byte) mpow.Register {
	r := mpow.Register{
		Kind: mpow.KindSimulated, Key: public(key), Measurement: mpow.SimulatedMeasurement(),
		Height: height, BlockHash: hash, StateRoot: [32]byte{7},
	}
	data := mpow.ReportData(chainID, r.Kind, r.Key, acct, height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(data))
	return r
}

// The first row is valid; each other breaks one thing (spec §3.2, §3.3).
func TestAdmitRefusesEachCorruption(t *testing.T) {
	hash := seed(3)
	for _, row := range []struct {
		name string
		mend func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context)
		want string
	}{
		{"valid", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {}, ""},
		{"hardware", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { r.Kind = mpow.KindDCAP }, "not checked"},
		{"unknown kind", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { r.Kind = 9 }, "kind(9)"},
		{"not allowed", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			p.AllowSimulated = false
		}, "§3.3"},
		{"a real measurement", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { r.Measurement[0] ^= 1 }, "measurement"},
		{"another operator's", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { *acct += "x" }, "bind"},
		{"another chain's", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { now.ChainID = "dev-b" }, "bind"},
		{"another state", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { r.StateRoot[0] ^= 1 }, "bind"},
		{"another key", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			r.Key = public(otherKey)
		}, "bind"},
		{"short key", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { r.Key = r.Key[:31] }, "31 bytes"},
		{"no account", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { *acct = "" }, "account"},
		{"too old", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			now.Height += p.SlotBlocks
		}, "height"},
		{"the oldest that counts", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			now.Height = r.Height + p.SlotBlocks
		}, ""},
		{"a block too old", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			now.Height = r.Height + p.SlotBlocks + 1
		}, "height"},
		{"to come", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { now.Height = r.Height }, "height"},
		{"another block", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { now.Hash[0] ^= 1 }, "hash"},
		{"block unknown", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) {
			now.Hash, r.BlockHash = [32]byte{}, [32]byte{}
		}, "hash"},
		{"another account's key", func(p *mpow.Params, r *mpow.Register, acct *mpow.Account, now *mpow.Context) { now.KeyOwner = "b" }, "belongs"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, acct := params(t), testAccount
			r := register(t, testChain, acct, testKey, 70, hash)
			now := mpow.Context{ChainID: testChain, Height: 75, Slot: 3, Hash: hash}
			row.mend(&p, &r, &acct, &now)
			n, err := p.Admit(nil, acct, r, now)
			if row.want == "" {
				if err != nil || n.AttestedUntil != 203 || n.Generation != 0 || n.Account != acct {
					t.Fatalf("node %+v, error %v", n, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestSameKeyRenewsAndAnotherBeginsAnew(t *testing.T) { // spec §3.2, §3.10
	p, hash := params(t), seed(6)
	n := node(t, p, file("a", 10))
	n.Measurement = mpow.SimulatedMeasurement()
	now := mpow.Context{ChainID: testChain, Height: 125, Slot: 6, Hash: hash}
	same, err := p.Admit(&n, n.Account, register(t, testChain, n.Account, testKey, 120, hash), now)
	if err != nil {
		t.Fatal(err)
	}
	want := n
	want.AttestedUntil = 206
	if !reflect.DeepEqual(same, want) {
		t.Fatalf("renewed to %+v, want %+v", same, want)
	}
	other, err := p.Admit(&n, n.Account, register(t, testChain, n.Account, otherKey, 120, hash), now)
	if err != nil {
		t.Fatal(err)
	}
	if other.Generation != 1 || other.Seq != 0 || other.FileBytes != 0 || other.Files != (mpow.LtHash{}) || other.PunishedUntil != 8 || other.Reports != 1 {
		t.Fatalf("a new key made %+v", other)
	}
	// Who it is and what it did stands; what it holds, and its processor, do not.
	was := n
	was.Group, was.Misses, was.Faults, was.PunishedUntil = "an owner", 3, 2, 77
	was.CPU, was.FMSPC, was.SRDBytes, was.Power, was.Lapsed = mpow.Hash{1}, mpow.FMSPC{1}, 7, 8, true
	anew, err := p.Admit(&was, n.Account, register(t, testChain, n.Account, otherKey, 120, hash), now)
	wantNew := mpow.Node{
		Account: n.Account, Key: public(otherKey), Measurement: n.Measurement, Kind: n.Kind, AttestedUntil: 206, Generation: 1, Group: "an owner",
		LastSlot: 5, Reports: 1, Misses: 3, Faults: 2, PunishedUntil: 77,
	}
	wantNew.FilesRoot = wantNew.Files.Digest()
	if err != nil || !reflect.DeepEqual(anew, wantNew) {
		t.Errorf("a new key made %+v, %v, want %+v", anew, err, wantNew)
	}
	// The slot has its report: that of a new key of the same node changes nothing.
	other, err = p.Admit(&n, n.Account, register(t, testChain, n.Account, otherKey, 119, hash), mpow.Context{ChainID: testChain, Height: 119 + 1, Slot: 5, Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	second, err := report(other, 5).Sign(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, c, err := p.Accept(other, second, at(p, 5)); err != nil || !c.Repeated || !reflect.DeepEqual(got, other) {
		t.Errorf("a second report of slot 5, by a new key: %+v, repeated %v, %v", got, c.Repeated, err)
	}
}

// What is not of the same key, measurement and kind, in a registration that has not
// lapsed, begins a generation (spec §3.2, §3.10).
func TestOnlyTheSameEnclaveRenews(t *testing.T) {
	p := params(t)
	r, now := hardware(p)
	base, err := p.Admit(nil, testAccount, r, now)
	if err != nil {
		t.Fatal(err)
	}
	base.Seq, base.FileBytes, base.Group = 7, 1000, "an owner"
	for _, row := range []struct {
		name  string
		mend  func(n *mpow.Node)
		anew  bool
		until mpow.Slot // punished
	}{
		{"the same", func(*mpow.Node) {}, false, 0},
		{"in its last slot of grace", func(n *mpow.Node) { n.AttestedUntil, p.GraceSlots = 1, 2 }, false, 0},
		{"another key", func(n *mpow.Node) { n.Key = public(otherKey) }, true, 3 + mpow.Slot(p.PunishSlots)},
		{"another build", func(n *mpow.Node) { n.Measurement[0]++ }, true, 3 + mpow.Slot(p.PunishSlots)},
		{"another kind", func(n *mpow.Node) { n.Kind = mpow.KindSimulated }, true, 3 + mpow.Slot(p.PunishSlots)},
		{"a slot after its grace", func(n *mpow.Node) { n.AttestedUntil, p.GraceSlots = 1, 1 }, true, 3 + mpow.Slot(p.PunishSlots)},
		{"lapsed, and the grace was made longer", func(n *mpow.Node) { n.Lapsed = true }, true, 3 + mpow.Slot(p.PunishSlots)},
		{"punished for longer", func(n *mpow.Node) { n.Key, n.PunishedUntil = public(otherKey), 1000 }, true, 1000},
	} {
		saved, n := p, base
		row.mend(&n)
		got, err := p.Admit(&n, testAccount, r, now)
		p = saved
		if err != nil || got.Lapsed || got.AttestedUntil != 3+mpow.Slot(p.AttestationSlots) || got.PunishedUntil != row.until || got.Group != base.Group {
			t.Errorf("%s: %+v, %v", row.name, got, err)
		}
		if (got.Generation == n.Generation+1) != row.anew || (got.Seq == 0) != row.anew || (got.FileBytes == 0) != row.anew {
			t.Errorf("%s: generation %d after %d, sequence %d, %d bytes", row.name, got.Generation, n.Generation, got.Seq, got.FileBytes)
		}
	}
}

func TestMsgHoldsExactlyOneVerb(t *testing.T) { // spec §2.1
	for _, row := range []struct {
		m    mpow.Msg
		want string
	}{
		{mpow.Msg{Report: &mpow.Signed{}}, ""},
		{mpow.Msg{}, "0 verbs"},
		{mpow.Msg{Report: &mpow.Signed{}, Register: &mpow.Register{}}, "2 verbs"},
		{mpow.Msg{Answer: &mpow.Answer{}}, ""},
		{mpow.Msg{Page: &mpow.Page{}, Recover: &mpow.Recover{}}, "2 verbs"},
		{mpow.Msg{Handover: &mpow.Handover{}}, ""},
		{mpow.Msg{Group: &mpow.Group{}}, ""},
	} {
		err := row.m.Check()
		if (row.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: got %v, want %q", row.m, err, row.want)
		}
	}
}

func TestSlots(t *testing.T) { // spec §1.4
	p := params(t)
	for height, want := range map[int64]mpow.Slot{0: 0, 1: 0, 19: 0, 20: 1, 39: 1, 40: 2} {
		if got := p.SlotOf(height); got != want {
			t.Errorf("height %d: slot %d, want %d", height, got, want)
		}
	}
	if p.Start(0) != 1 || p.Start(1) != 20 || p.Start(2) != 40 {
		t.Errorf("slots start at %d, %d, %d", p.Start(0), p.Start(1), p.Start(2))
	}
}

func TestPresetsAreInRange(t *testing.T) { // spec §1.5
	for _, class := range []string{"main", "test", "dev"} {
		p, err := mpow.Preset(class)
		if err != nil || p.Validate() != nil || p.AllowSimulated != (class == "dev") {
			t.Errorf("%s: %+v, %v, %v", class, p, err, p.Validate())
		}
	}
	if _, err := mpow.Preset("x"); err == nil {
		t.Error("class x has a preset")
	}
	good := params(t)
	for name, mend := range map[string]func(*mpow.Params){
		"slot_blocks": func(p *mpow.Params) { p.SlotBlocks = 0 }, "srd_unit": func(p *mpow.Params) { p.SRDUnit++ },
		"srd_leaf": func(p *mpow.Params) { p.SRDLeaf = 0 }, "punish_slots": func(p *mpow.Params) { p.PunishSlots = 0 },
		"report_files": func(p *mpow.Params) { p.ReportFiles = 0 }, "max_file_size": func(p *mpow.Params) { p.MaxFileSize = 1 },
		"attestation_slots": func(p *mpow.Params) { p.AttestationSlots = 0 }, "max_per_cpu": func(p *mpow.Params) { p.MaxPerCPU = 0 },
		"grace_slots": func(p *mpow.Params) { p.GraceSlots = 1 << 40 },
	} {
		p := good
		mend(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s out of range: got %v", name, err)
		}
	}
}

func TestTextOfAccountsAndHashes(t *testing.T) {
	// A libp2p peer ID, in base58 as libp2p writes it.
	const text = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"
	var a mpow.Account
	if err := a.UnmarshalText([]byte(text)); err != nil || len(a) != 38 || a.String() != text {
		t.Fatalf("%d bytes, %v, %v", len(a), a, err)
	}
	for _, raw := range []mpow.Account{"", "\x00", "\x00\x00\x01", "abc"} {
		var back mpow.Account
		if err := back.UnmarshalText([]byte(raw.String())); err != nil || back != raw {
			t.Errorf("%q came back as %q, %v", string(raw), string(back), err)
		}
	}
	b, err := json.Marshal(mpow.ProverInfo{Kind: mpow.KindSimulated, Account: a})
	if err != nil || !strings.Contains(string(b), text) || !strings.Contains(string(b), `"simulated"`) {
		t.Errorf("%s, %v", b, err)
	}
	var info mpow.ProverInfo
	if err := json.Unmarshal(b, &info); err != nil || info.Account != a || info.Kind != mpow.KindSimulated {
		t.Errorf("%+v, %v", info, err)
	}
}
