package chain

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/coin"
)

// upgrading is a chain with an upgrade to version 2 planned, just before it.
func upgrading(t *testing.T, disk vfs.FS, genesis Genesis) (height int64) {
	t.Helper()
	app, err := OpenApp(AppConfig{Genesis: genesis, Audit: true, memory: disk})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSolo(SoloConfig{App: app, Key: testKey(t, "validator")})
	if err != nil {
		t.Fatal(err)
	}
	defer closeApp(t, app)
	submit(t, s, proposal(Propose{Title: "version two", Upgrade: &Upgrade{"two", 2, 40}}))
	submit(t, s, word(1, Yes))
	until(t, s, 36)
	if version, plan := s.View().Protocol(); version != 1 || plan == nil || plan.Height != 40 {
		t.Fatalf("version %d, plan %+v; want the plan enacted", version, plan)
	}
	until(t, s, 39)
	if b := s.Block(); b.Height != 0 { // the old build makes no block at the height
		t.Fatalf("the old build made block %d", b.Height)
	}
	for _, text := range []string{s.Status().Stopped, asError(t, s.Enter(nil)).Text} {
		if !strings.Contains(text, `from height 40 it follows protocol version 2 ("two"), this build knows up to 1`) {
			t.Errorf("it says %q", text)
		}
	}
	if _, err := app.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Height: 40}); !errors.Is(err, ErrUpgrade) {
		t.Errorf("a block at 40 is executed: %v", err)
	}
	if r, _ := app.ProcessProposal(context.Background(), &abci.RequestProcessProposal{Height: 40}); r.Status != abci.ResponseProcessProposal_REJECT {
		t.Errorf("a block at 40 is voted for")
	}
	return 39
}

func upgradeGenesis(t *testing.T) Genesis {
	g := testGenesis(t)
	g.Accounts = append(g.Accounts, GenesisAccount{testID(t, "validator"), 1000 * coin.LODE})
	return g
}

func TestUpgradeHaltsAndResumes(t *testing.T) { // spec §8.1
	disk, g := vfs.NewMem(), upgradeGenesis(t)
	at := upgrading(t, disk, g)

	old, err := OpenApp(AppConfig{Genesis: g, memory: disk})
	if err != nil {
		t.Fatal(err) // what is there can still be read
	}
	if err := old.Halted(); !errors.Is(err, ErrUpgrade) || old.View().Height() != at {
		t.Errorf("started again, the old build at %d says %v", old.View().Height(), err)
	}
	closeApp(t, old)

	migrated := int64(0)
	migrations[2] = func(s *state) { migrated = s.height }
	defer delete(migrations, 2)
	app, err := OpenApp(AppConfig{Genesis: g, Audit: true, memory: disk, Protocol: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer closeApp(t, app)
	s, err := NewSolo(SoloConfig{App: app, Key: testKey(t, "alice")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := app.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Height: 40, Hash: bytes.Repeat([]byte{1}, 32)})
	if err != nil || r.ConsensusParamUpdates == nil || r.ConsensusParamUpdates.Version.App != 2 {
		t.Fatalf("%+v, %v; want CometBFT told of version 2", r, err)
	}
	b := s.Block()
	if version, plan := s.View().Protocol(); b.Height != 40 || version != 2 || plan != nil || migrated != 40 {
		t.Errorf("block %d: version %d, plan %v, migrated at %d", b.Height, version, plan, migrated)
	}
	submit(t, s, send(testID(t, "bob"), 1))
	if i, _ := app.Info(context.Background(), nil); i.AppVersion != 2 {
		t.Errorf("info says version %d", i.AppVersion)
	}
}

func TestAnUpgradeCanBeCancelled(t *testing.T) { // spec §8.1
	s, validator := governed(t)
	submit(t, s, proposal(Propose{Title: "version two", Upgrade: &Upgrade{"two", 2, 100}}))
	submit(t, validator, word(1, Yes))
	until(t, s, 36)
	submit(t, s, proposal(Propose{Title: "not yet", CancelUpgrade: true}))
	submit(t, validator, word(2, Yes))
	until(t, s, 110)
	if version, plan := s.View().Protocol(); version != 1 || plan != nil {
		t.Errorf("version %d, plan %v", version, plan)
	}
}

// Who would take a plan back too late is told so before the deposit is held, and
// one that loses the race by a block finds nothing to take back.
func TestAnUpgradeIsCancelledTooLate(t *testing.T) { // spec §8.1
	g := upgradeGenesis(t)
	app, err := OpenApp(AppConfig{Genesis: g, Audit: true, Protocol: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer closeApp(t, app)
	s, err := NewSolo(SoloConfig{App: app, Key: testKey(t, "validator")})
	if err != nil {
		t.Fatal(err)
	}
	pass := func(m Propose) Proposal {
		t.Helper()
		submit(t, s, proposal(m))
		all := s.View().Proposals()
		id := all[len(all)-1].ID
		submit(t, s, word(id, Yes))
		p, _ := s.View().Proposal(id)
		return p
	}
	plan := pass(Propose{Title: "two", Upgrade: &Upgrade{"two", 2, 60}})
	until(t, s, plan.Enacts)
	if _, plan := s.View().Protocol(); plan == nil {
		t.Fatal("nothing is planned")
	}
	cancel := pass(Propose{Title: "in time, as it seems", CancelUpgrade: true})
	if cancel.Enacts != 48 {
		t.Fatalf("enacted at %d, want 48", cancel.Enacts)
	}
	sooner := pass(Propose{Title: "sooner", Upgrade: &Upgrade{"two", 2, 60}})
	if sooner.Enacts != 48 {
		t.Fatalf("enacted at %d, want 48", sooner.Enacts)
	}
	until(t, s, 48) // both in one block, in order of id: taken back, and planned anew
	if c, _ := s.View().Proposal(cancel.ID); c.State != StateEnacted {
		t.Errorf("%+v, want it enacted", c)
	}
	if _, plan := s.View().Protocol(); plan == nil || plan.Height != 60 {
		t.Fatalf("plan %+v, want height 60", plan)
	}
	_, err = s.Submit(context.Background(), proposal(Propose{Title: "too late", CancelUpgrade: true}))
	if e := asError(t, err); e == nil || e.Code != CodeRefused || !strings.Contains(e.Text, `upgrade "two" comes at height 60, and taking it back could take effect at 72`) {
		t.Errorf("too late: %v", err)
	}
	until(t, s, 61)
	if version, plan := s.View().Protocol(); version != 2 || plan != nil {
		t.Errorf("version %d, plan %v", version, plan)
	}
}

func TestANewBuildRunsTheOldRulesBefore(t *testing.T) { // spec §8.1: who upgrades early agrees with all others
	g := upgradeGenesis(t)
	var apps []*App
	for _, protocol := range []uint64{1, 2} {
		a, err := OpenApp(AppConfig{Genesis: g, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		defer closeApp(t, a)
		if _, err := a.InitChain(context.Background(), &abci.RequestInitChain{ChainId: g.ChainID}); err != nil {
			t.Fatal(err)
		}
		apps = append(apps, a)
	}
	for range 30 {
		if x, y := finalize(t, apps[0]), finalize(t, apps[1]); !bytes.Equal(x.AppHash, y.AppHash) {
			t.Fatalf("height %d: %x and %x", apps[0].View().Height(), x.AppHash, y.AppHash)
		}
	}
}
