package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/cometbft/cometbft/version"

	"github.com/lode-node/lode/coin"
)

// lightBlock is the signed header of height 1 of a chain with one validator,
// whose key is of that name.
func lightBlock(t testing.TB, g Genesis, name string) []byte {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	pv := cmttypes.NewMockPVWithParams(cmted25519.GenPrivKeyFromSecret(seed[:]), false, false)
	set := cmttypes.NewValidatorSet([]*cmttypes.Validator{cmttypes.NewValidator(pv.PrivKey.PubKey(), 1)})
	hash := bytes.Repeat([]byte{7}, 32)
	h := cmttypes.Header{
		ChainID: g.ChainID, Height: 1, Time: g.Time, ValidatorsHash: set.Hash(), NextValidatorsHash: set.Hash(),
		ConsensusHash: hash, AppHash: hash, LastResultsHash: hash, ProposerAddress: pv.PrivKey.PubKey().Address(),
	}
	h.Version.Block = version.BlockProtocol
	id := cmttypes.BlockID{Hash: h.Hash(), PartSetHeader: cmttypes.PartSetHeader{Total: 1, Hash: hash}}
	v := &cmttypes.Vote{Type: cmtproto.PrecommitType, Height: 1, ValidatorAddress: set.Validators[0].Address, Timestamp: g.Time, BlockID: id}
	p := v.ToProto()
	if err := pv.SignVote(g.ChainID, p); err != nil {
		t.Fatal(err)
	}
	b := cmttypes.LightBlock{ValidatorSet: set, SignedHeader: &cmttypes.SignedHeader{Header: &h, Commit: &cmttypes.Commit{Height: 1, BlockID: id, Signatures: []cmttypes.CommitSig{
		{BlockIDFlag: cmttypes.BlockIDFlagCommit, ValidatorAddress: v.ValidatorAddress, Timestamp: v.Timestamp, Signature: p.Signature},
	}}}}
	pb, err := b.ToProto()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pb.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzLight gives a light client that trusts a header any bytes as the next one:
// nothing that its validators did not sign is trusted, and none panics.
func FuzzLight(f *testing.F) {
	g := testGenesis(f)
	mine, other := lightBlock(f, g, "a"), lightBlock(f, g, "b")
	f.Add(mine)
	f.Add(other)
	f.Add(mine[:100])
	f.Fuzz(func(t *testing.T, raw []byte) {
		trusted, err := readLight(g.ChainID, mine)
		if err != nil {
			t.Fatal(err)
		}
		c := &LightClient{genesis: g, period: time.Hour, trusted: trusted}
		if err := c.Advance(raw, g.Time.Add(time.Minute)); err == nil {
			t.Fatalf("%x is trusted", raw)
		}
		if b, err := readLight(g.ChainID, raw); err == nil && b.ChainID != g.ChainID {
			t.Fatalf("a header of %q", b.ChainID)
		}
	})
}

// FuzzDraft reads any JSON as what one signer sends the next: what it is signed
// for is what it says, and a transaction of it decodes.
func FuzzDraft(f *testing.F) {
	x := treasury(f, 2, "k1", "k2", "k3")
	for _, signers := range [][]string{nil, {"k3"}, {"k1", "k2"}} {
		raw, err := json.Marshal(draftOf(f, x, send(testID(f, "bob"), coin.LODE), signers...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"threshold":{"need":2,"keys":[]},"body":"","sigs":{"-1":"AA=="}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d Draft
		if err := json.Unmarshal(raw, &d); err != nil {
			return
		}
		if err := d.Sign(testKey(t, "k1")); err == nil {
			if b, err := d.Decoded(); err != nil || b.Sender != d.Threshold.Account() {
				t.Fatalf("k1 signed for %v, %v", b.Sender, err)
			}
		}
		if tx, err := d.Tx(); err == nil {
			if _, err := DecodeTx(tx); err != nil {
				t.Fatalf("%s makes a transaction that is none: %v", raw, err)
			}
		}
	})
}

// FuzzGenesis reads any file as a genesis: what passes is what it says, however
// often it is written.
func FuzzGenesis(f *testing.F) {
	g := testGenesis(f)
	path := filepath.Join(f.TempDir(), "genesis.json")
	if err := g.Save(path); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := LoadGenesis(path)
		if err != nil {
			return
		}
		if err := g.Save(path); err != nil {
			t.Fatal(err)
		}
		if again, err := LoadGenesis(path); err != nil || again.Hash() != g.Hash() {
			t.Fatalf("%s comes back as another genesis: %v", raw, err)
		}
	})
}
