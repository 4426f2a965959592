package chain

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cmtcfg "github.com/cometbft/cometbft/config"
	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/p2p"
	cmttypes "github.com/cometbft/cometbft/types"
)

// Bounds of what consensus carries.
const (
	maxBlockBytes     = 4 << 20  // ASA-2023-002: CometBFT's own default is thirteen times that
	maxEvidenceBytes  = 64 << 10 // of a block
	blockBytesOver    = 64 << 10 // what a block needs beside the longest answer to a draw (spec §3.11)
	mempoolTxs        = 2000
	mempoolBytes      = 32 << 20
	mempoolSeen       = 10_000 // hashes of transactions remembered, to gossip each once
	loopbackThrottle  = 10 * time.Millisecond
	reconnectInterval = 10 * time.Second // at most, to a peer that is down
)

// cometConfig is CometBFT's configuration of a node of ours under the params in
// force; nothing of it is read from a file.
func cometConfig(c CometConfig, p Params) *cmtcfg.Config {
	blockTime := time.Duration(p.BlockTime) * time.Millisecond
	dir := filepath.Join(c.Home, cometDir)

	cfg := cmtcfg.DefaultConfig()
	cfg.SetRoot(dir)
	cfg.Moniker = "lode"
	cfg.DBPath = cometData
	cfg.NodeKey, cfg.PrivValidatorKey, cfg.PrivValidatorState = cometNodeKey, cometVoteKey, cometVotes

	// Nobody but us asks CometBFT: our own API serves people, our own view
	// serves code. Its index of transactions costs two thirds of a small one.
	cfg.RPC.ListenAddress = ""
	cfg.TxIndex.Indexer = "null"
	cfg.Instrumentation.Prometheus = false
	cfg.StateSync.Enable = false
	cfg.Storage.DiscardABCIResponses = true // our own index has what became of transactions

	wire := cfg.P2P
	wire.ListenAddress = "tcp://" + c.Listen
	wire.AddrBook = "addrbook.json"
	wire.PersistentPeers = strings.Join(c.Peers, ",")
	wire.PersistentPeersMaxDialPeriod = reconnectInterval
	wire.FlushThrottleTimeout = loopbackThrottle
	if c.Genesis.Class == ClassDev {
		// Many nodes on one machine, all of them listed.
		wire.AddrBookStrict = false
		wire.AllowDuplicateIP = true
		wire.PexReactor = false
	}

	m := cfg.Mempool
	m.Size, m.MaxTxsBytes, m.CacheSize = mempoolTxs, mempoolBytes, mempoolSeen
	m.MaxTxBytes = int(p.BlockBytes) - blockBytesOver/2

	s := cfg.Consensus
	s.WalPath = filepath.Join(cometData, "cs.wal", "wal")
	s.CreateEmptyBlocks = true // the height is the clock of every rule (spec §1.4)
	s.PeerGossipSleepDuration = loopbackThrottle
	s.TimeoutCommit = blockTime - min(blockTime/5, 50*time.Millisecond) // votes take the rest
	s.TimeoutPropose = clamp(2*blockTime, 500*time.Millisecond, 3*time.Second)
	s.TimeoutPrevote = clamp(blockTime, 200*time.Millisecond, time.Second)
	s.TimeoutPrecommit = s.TimeoutPrevote
	s.TimeoutProposeDelta, s.TimeoutPrevoteDelta, s.TimeoutPrecommitDelta =
		s.TimeoutPropose/2, s.TimeoutPrevote/2, s.TimeoutPrecommit/2
	return cfg
}

func clamp(d, low, high time.Duration) time.Duration { return max(low, min(d, high)) }

// checkListen refuses an address that CometBFT cannot listen on, with the port
// in the text. CometBFT would say so as well, but only after it replayed the
// chain.
func checkListen(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("consensus address %q: want host:port: %w", addr, err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("consensus address %q: port must be between 1 and 65535: others must know it", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("consensus port %s: cannot listen on %s, is another node running there: %w", port, addr, err)
	}
	return l.Close()
}

// checkPeers refuses addresses that CometBFT could not dial.
func checkPeers(peers []string) error {
	for _, s := range peers {
		id, addr, ok := strings.Cut(s, "@")
		if !ok || len(id) != 2*p2p.IDByteLength {
			return fmt.Errorf("consensus peer %q: want id@host:port with an id of %d hex digits", s, 2*p2p.IDByteLength)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("consensus peer %q: %w", s, err)
		}
	}
	return nil
}

// blockTime is how far apart blocks should come.
func (c CometConfig) blockTime() time.Duration {
	return time.Duration(c.Genesis.Params.BlockTime) * time.Millisecond
}

// cometDoc is g as CometBFT takes it. App state and hash are g itself.
func (g Genesis) cometDoc() (*cmttypes.GenesisDoc, error) {
	raw, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	p := cmttypes.DefaultConsensusParams()
	p.Block.MaxBytes, p.Block.MaxGas = g.Params.BlockBytes, -1
	p.Evidence.MaxAgeNumBlocks, p.Evidence.MaxAgeDuration = g.Params.evidenceAge()
	p.Evidence.MaxBytes = maxEvidenceBytes
	p.Version.App = 1
	doc := &cmttypes.GenesisDoc{ChainID: g.ChainID, GenesisTime: g.Time, InitialHeight: 1, ConsensusParams: p, AppState: raw}
	for _, v := range g.Validators {
		doc.Validators = append(doc.Validators, cmttypes.GenesisValidator{
			PubKey: cmted25519.PubKey(v.ConsensusKey), Power: int64(max(1, v.Bond/g.Params.Stake.PowerUnit)),
		})
	}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if p.Block.MaxBytes > maxBlockBytes {
		return nil, fmt.Errorf("genesis: blocks of %d bytes: at most %d", p.Block.MaxBytes, maxBlockBytes)
	}
	return doc, nil
}

// evidenceAge is how old a double vote may be and still cost: the bond that
// stands for it unbonds an era later at the earliest (spec §4.2).
func (p Params) evidenceAge() (blocks int64, age time.Duration) {
	eras := max(1, int64(p.Stake.UnbondEras)-1)
	blocks = eras * p.EraSlots * p.Mpow.SlotBlocks
	return blocks, time.Duration(blocks*p.BlockTime) * time.Millisecond
}
