package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cometbft/cometbft/light"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmttypes "github.com/cometbft/cometbft/types"
)

// LightBlock returns the header of a height with the commit that decided it and
// the set that could, as CometBFT's protobuf: what a [LightClient] checks. The
// last height has none before the next is made: CodeAbsent.
func (t *Comet) LightBlock(ctx context.Context, height int64) ([]byte, error) {
	n, err := t.running(ctx)
	if err != nil {
		return nil, err
	}
	meta, commit := n.BlockStore().LoadBlockMeta(height), n.BlockStore().LoadBlockCommit(height)
	set, err := t.sets.LoadValidatorsFast(height)
	if meta == nil || commit == nil || err != nil {
		return nil, refuse(CodeAbsent, "no light block of height %d: heights 1 to %d have one", height, n.BlockStore().Height()-1)
	}
	b := cmttypes.LightBlock{SignedHeader: &cmttypes.SignedHeader{Header: &meta.Header, Commit: commit}, ValidatorSet: set}
	pb, err := b.ToProto()
	if err != nil {
		return nil, fmt.Errorf("light block %d: %w", height, err)
	}
	return pb.Marshal()
}

// LightHash returns the hash of the header in a light block of the chain, 32
// bytes, which says nothing about whether the header is to be believed.
func LightHash(chainID string, raw []byte) ([]byte, error) {
	b, err := readLight(chainID, raw)
	if err != nil {
		return nil, err
	}
	return b.Hash(), nil
}

// ErrLightOld is returned by Advance when the trusted header is older than double
// votes cost: begin again from a later one, with [LightClient.Trust].
var ErrLightOld = errors.New("the trusted header is too old")

// A LightClient follows the headers of a chain and trusts nobody but the set of
// its genesis, and after that whom two thirds of a trusted set's power and a
// third of the next vouch for. It is for one goroutine.
type LightClient struct {
	genesis Genesis
	period  time.Duration
	trusted *cmttypes.LightBlock
}

// lightDrift is how far ahead of ours the clock of a chain may be.
const lightDrift = 10 * time.Second

// NewLightClient begins with first, the light block of height 1, which the set of
// the genesis must have decided. Trust lasts for as long as double votes cost
// (spec §4.2): a client that comes later has to begin from a header that it
// trusts for other reasons, with [LightClient.Trust].
func NewLightClient(g Genesis, first []byte) (*LightClient, error) {
	b, err := readLight(g.ChainID, first)
	if err != nil {
		return nil, err
	}
	doc, err := g.cometDoc()
	if err != nil {
		return nil, err
	}
	var set []*cmttypes.Validator
	for _, v := range doc.Validators {
		set = append(set, cmttypes.NewValidator(v.PubKey, v.Power))
	}
	want := cmttypes.NewValidatorSet(set)
	if b.Height != 1 || !bytes.Equal(b.ValidatorsHash, want.Hash()) {
		return nil, fmt.Errorf("light block of height %d: its set is not that of the genesis of %s", b.Height, g.ChainID)
	}
	if err := want.VerifyCommitLight(g.ChainID, b.Commit.BlockID, 1, b.Commit); err != nil {
		return nil, fmt.Errorf("light block of height 1: %w", err)
	}
	_, period := g.Params.evidenceAge()
	return &LightClient{genesis: g, period: period, trusted: b}, nil
}

// Trust begins again from the header of a height, whose hash the caller vouches
// for.
func (c *LightClient) Trust(raw []byte, hash []byte) error {
	b, err := readLight(c.genesis.ChainID, raw)
	if err != nil {
		return err
	}
	if len(hash) == 0 || !bytes.Equal(b.Hash(), hash) {
		return fmt.Errorf("light block of height %d has hash %x, not %x", b.Height, []byte(b.Hash()), hash)
	}
	if err := b.ValidatorSet.VerifyCommitLight(c.genesis.ChainID, b.Commit.BlockID, b.Height, b.Commit); err != nil {
		return err
	}
	c.trusted = b
	return nil
}

// ErrLightGap is returned by Advance when too much of the set changed on the way:
// a light block from between helps.
var ErrLightGap = errors.New("the set changed too much since the last trusted header")

// Advance checks the light block of a later height and trusts it from then on.
// now is the caller's clock.
func (c *LightClient) Advance(raw []byte, now time.Time) error {
	b, err := readLight(c.genesis.ChainID, raw)
	if err != nil {
		return err
	}
	if b.Height <= c.trusted.Height {
		return fmt.Errorf("light block of height %d: %d is trusted already", b.Height, c.trusted.Height)
	}
	err = light.Verify(c.trusted.SignedHeader, c.trusted.ValidatorSet, b.SignedHeader, b.ValidatorSet, c.period, now, lightDrift, light.DefaultTrustLevel)
	var gap light.ErrNewValSetCantBeTrusted
	var old light.ErrOldHeaderExpired
	switch {
	case errors.As(err, &old):
		return fmt.Errorf("%w: that of height %d is of %v, and trust lasts %v", ErrLightOld, c.trusted.Height, c.trusted.Time.UTC(), c.period)
	case errors.As(err, &gap):
		return fmt.Errorf("%w: %d and %d", ErrLightGap, c.trusted.Height, b.Height)
	case err != nil:
		return fmt.Errorf("light block of height %d: %w", b.Height, err)
	}
	c.trusted = b
	return nil
}

// Follow is Advance, with light blocks from between where the set changed too
// much, which between returns by height.
func (c *LightClient) Follow(raw []byte, now time.Time, between func(height int64) ([]byte, error)) error {
	goal, err := readLight(c.genesis.ChainID, raw)
	if err != nil {
		return err
	}
	step := goal.Height - c.trusted.Height
	for c.trusted.Height < goal.Height {
		next := raw
		if at := c.trusted.Height + step; at < goal.Height {
			if next, err = between(at); err != nil {
				return err
			}
		}
		err := c.Advance(next, now)
		switch {
		case errors.Is(err, ErrLightGap) && step > 1:
			step /= 2
		case err != nil:
			return err
		default:
			step = max(1, goal.Height-c.trusted.Height)
		}
	}
	return nil
}

// Height returns the trusted height.
func (c *LightClient) Height() int64 { return c.trusted.Height }

// AppHash returns the app hash that the trusted header carries: the root of the
// state after the height before it.
func (c *LightClient) AppHash() (height int64, hash []byte) {
	return c.trusted.Height - 1, c.trusted.AppHash
}

// readLight decodes a light block and checks that it agrees with itself.
func readLight(chainID string, raw []byte) (*cmttypes.LightBlock, error) {
	var pb cmtproto.LightBlock
	if err := pb.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("light block: %w", err)
	}
	b, err := cmttypes.LightBlockFromProto(&pb)
	if err == nil {
		err = b.ValidateBasic(chainID)
	}
	if err != nil {
		return nil, fmt.Errorf("light block: %w", err)
	}
	return b, nil
}
