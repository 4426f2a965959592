package chain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
)

func TestPresetsAreInRange(t *testing.T) { // spec §1.5
	for _, class := range []string{ClassMain, ClassTest, ClassDev} {
		p, err := Preset(class)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Validate(1_000_000_000 * coin.LODE); err != nil {
			t.Errorf("%s: %v", class, err)
		}
		if p.Mpow.AllowSimulated != (class == ClassDev) {
			t.Errorf("%s: allow_simulated is %v", class, p.Mpow.AllowSimulated)
		}
	}
	if _, err := Preset("none"); err == nil {
		t.Error("a preset of class none")
	}
}

func TestParamsRefuseEachBadValue(t *testing.T) { // spec §1.5
	for _, c := range []struct {
		name   string
		change func(*Params)
	}{
		{"block_time_ms", func(p *Params) { p.BlockTime = 0 }},
		{"era_slots", func(p *Params) { p.EraSlots = 0 }},
		{"era_slots", func(p *Params) { p.EraSlots = 4 }}, // and 3 in market
		{"slot_blocks", func(p *Params) { p.Mpow.SlotBlocks = 0 }},
		{"slot_blocks", func(p *Params) { p.Mpow.SlotBlocks++ }},
		{"max_file_size", func(p *Params) { p.Mpow.MaxFileSize *= 2 }},
		{"block_bytes", func(p *Params) { p.BlockBytes = int64(p.Mpow.ProofBytes) + 64<<10 - 1 }}, // spec §3.11
		{"proof_bytes", func(p *Params) { p.Mpow.ProofBytes = mpow.MaxProof + 1 }},
		{"draws", func(p *Params) { p.Mpow.Draws = mpow.MaxDraws + 1 }},
		{"tx_bytes", func(p *Params) { p.TxBytes = -1 }},
		{"batch", func(p *Params) { p.Batch = 0 }},
		{"fees.base", func(p *Params) { p.Fees.Base = 1 << 63 }},
		{"claim_burn", func(p *Params) { p.ClaimBurn = 500_001 }},
		{"claim_burn", func(p *Params) { p.ClaimBurn = 9_999 }},
		{"power_unit", func(p *Params) { p.Stake.PowerUnit = 0 }},
		{"byte fee", func(p *Params) { p.Market.Byte.Floor = 0 }},
	} {
		p, err := Preset(ClassDev)
		if err != nil {
			t.Fatal(err)
		}
		c.change(&p)
		if err := p.Validate(coin.LODE); err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s: %v, want an error naming it", c.name, err)
		}
	}
}

func TestGenesisRefusesEachCorruption(t *testing.T) { // spec §1.5, §3.1, §4.3
	for _, c := range []struct {
		name   string
		change func(*Genesis)
		text   string // in the error; empty: valid
	}{
		{"valid", func(*Genesis) {}, ""},
		{"simulated on a test network", func(g *Genesis) { g.ChainID, g.Class = "test-1", ClassTest }, "allow_simulated"},
		{"simulated on mainnet", func(g *Genesis) { g.ChainID, g.Class = "lode-1", ClassMain }, "allow_simulated"},
		{"devnet under another name", func(g *Genesis) { g.ChainID = "lode-1" }, "begin with dev-"},
		{"devnet's name for another class", func(g *Genesis) { g.Class = ClassTest }, "begin with dev-"},
		{"mainnet without a measurement", func(g *Genesis) {
			g.ChainID, g.Class, g.Params.Mpow.AllowSimulated = "lode-1", ClassMain, false
		}, "measurement"},
		{"mainnet with one", func(g *Genesis) {
			asMain(t, g)
		}, ""},
		{"mainnet under another root", func(g *Genesis) { asMain(t, g); g.QuoteRoot = forge(t, nil).Root }, "Intel's SGX Root CA"},
		{"mainnet under no root", func(g *Genesis) { asMain(t, g); g.QuoteRoot = nil }, "Intel's SGX Root CA"},
		{"mainnet without collateral", func(g *Genesis) { asMain(t, g); g.Collateral = nil }, "needs first collateral"},
		{"mainnet with old collateral", func(g *Genesis) { asMain(t, g); g.Time = g.Time.AddDate(0, 2, 0) }, "collateral 1: "},
		{"collateral without a root", func(g *Genesis) { g.Collateral = []quote.Collateral{forge(t, nil).Collateral} }, "no root certificate"},
		{"empty collateral", func(g *Genesis) { g.QuoteRoot, g.Collateral = forge(t, nil).Root, make([]quote.Collateral, 1) }, "there is none"},
		{"a devnet with a root of its own", func(g *Genesis) {
			f := forge(t, nil)
			g.QuoteRoot, g.Collateral = f.Root, []quote.Collateral{f.Collateral}
		}, ""},
		{"a measurement of nothing", func(g *Genesis) { g.Measurements = []mpow.Measurement{{}} }, "no mrenclave"},
		{"a measurement twice", func(g *Genesis) {
			g.Measurements = []mpow.Measurement{{MRENCLAVE: mpow.Hash{1}}, {MRENCLAVE: mpow.Hash{1}}}
		}, "twice"},
		{"too many measurements", func(g *Genesis) { g.Measurements = make([]mpow.Measurement, 65) }, "65 measurements"},
		{"policy", func(g *Genesis) { g.Policy = &mpow.Policy{Statuses: []string{""}} }, "statuses"},
		{"class", func(g *Genesis) { g.Class = "none" }, `"none"`},
		{"id too short", func(g *Genesis) { g.ChainID = "d" }, "3 to 50"},
		{"id with a slash", func(g *Genesis) { g.ChainID = "dev-/" }, "letters"},
		{"no time", func(g *Genesis) { g.Time = time.Time{} }, "no time"},
		{"an account twice", func(g *Genesis) { g.Accounts = append(g.Accounts, g.Accounts[0]) }, "twice"},
		{"no account", func(g *Genesis) { g.Accounts[0].ID = "me" }, "peer ID"},
		{"too much money", func(g *Genesis) { g.Accounts[0].Free = 1 << 63 }, "63 bits"},
		{"no validators", func(g *Genesis) { g.Validators = nil }, "no validators"},
		{"no bond", func(g *Genesis) { g.Validators[0].Bond = 0 }, "no bond"},
		{"short key", func(g *Genesis) { g.Validators[0].ConsensusKey = []byte{1} }, "1 bytes"},
		{"a validator twice", func(g *Genesis) { g.Validators = append(g.Validators, g.Validators[0]) }, "twice"},
		{"bootstrap address", func(g *Genesis) {
			g.Bootstrap = []Bootstrap{{ID: g.Accounts[0].ID, Addrs: []string{"nowhere"}}}
		}, `"nowhere"`},
		{"params", func(g *Genesis) { g.Params.BlockTime = 0 }, "block_time_ms"},
	} {
		g := testGenesis(t)
		c.change(&g)
		err := g.Validate()
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
	}
}

func TestGenesisFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "genesis.json")
	g := testGenesis(t)
	g.Bootstrap = []Bootstrap{{ID: testID(t, "alice"), Addrs: []string{"/ip4/127.0.0.1/tcp/24001"}, Comet: "ab@127.0.0.1:24002"}}
	if err := g.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadGenesis(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash() != g.Hash() {
		t.Errorf("%+v, want %+v", got, g)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		strings.Replace(string(raw), `"class"`, `"klass"`, 1),
		string(raw) + "{}",
		"",
	} {
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadGenesis(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want an error naming the file", err)
		}
	}
}

// The least set of a devnet is more than two thirds of its first.
func TestDevnetsKeepTwoThirds(t *testing.T) { // spec §1.5
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]uint64{0: 1, 1: 1, 2: 2, 3: 3, 4: 3, 7: 5, 20: 14, 40: 14} {
		if got := p.WithValidators(n).Stake.MinValidators; got != want {
			t.Errorf("%d validators: a set of %d is enough, want %d", n, got, want)
		}
	}
}

func TestTimes(t *testing.T) { // spec §1.4
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	p = p.WithSlots(10, 3)
	for _, c := range []struct {
		height      int64
		slot        mpow.Slot
		era         uint64
		first       bool // of a slot
		starts, end bool // an era
	}{
		{1, 0, 0, false, false, false},
		{9, 0, 0, false, false, false},
		{10, 1, 0, true, false, false},
		{29, 2, 0, false, false, true},
		{30, 3, 1, true, true, false},
		{59, 5, 1, false, false, true},
		{60, 6, 2, true, true, false},
	} {
		if p.SlotOf(c.height) != c.slot || uint64(p.EraOf(c.height)) != c.era ||
			p.startsSlot(c.height) != c.first || p.startsEra(c.height) != c.starts || p.endsEra(c.height) != c.end {
			t.Errorf("height %d: slot %d, era %d, %v, %v, %v; want %+v", c.height, p.SlotOf(c.height), p.EraOf(c.height),
				p.startsSlot(c.height), p.startsEra(c.height), p.endsEra(c.height), c)
		}
	}
	if p.Start(0) != 1 || p.Start(3) != 30 {
		t.Errorf("slots 0 and 3 begin at %d and %d, want 1 and 30", p.Start(0), p.Start(3))
	}
}
