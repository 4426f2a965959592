package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	cmtcrypto "github.com/cometbft/cometbft/proto/tendermint/crypto"
)

// An AppConfig says where and what chain an [App] keeps.
type AppConfig struct {
	Dir     string       // directory of the store, made if absent; empty keeps all in memory
	Genesis Genesis      // the chain; a store of another chain is refused
	Logger  *slog.Logger // nil discards
	Audit   bool         // checks the invariants of spec §9 after each block; a breach panics
	// Protocol is the newest protocol version that this process says it knows; zero
	// is the build's own, [ProtocolVersion]. Tests set it to go through an upgrade.
	Protocol uint64

	waiting int        // how many transactions may wait; 0: maxWaiting
	keep    int64      // versions of the tree that are kept; 0: keepVersions
	blocks  int64      // blocks that are kept; 0: keepBlocks
	quotes  quoteCheck // nil: checkQuote; tests play Intel with it
	memory  vfs.FS     // with Dir empty: the file system in memory, so that tests survive a crash
}

// An App is the chain's state behind ABCI: it checks, executes and commits what
// a driver puts in order. Its ABCI methods may be called over the four
// connections at once, as by CometBFT's connection-synced local client; block
// methods by one goroutine at a time. View, Next and Height are safe anywhere.
type App struct {
	abci.BaseApplication
	genesis  Genesis
	audit    bool
	protocol uint64 // newest that is known
	log      *slog.Logger
	quotes   quoteCheck

	store *store
	first *overlay // the genesis writes until height 1 is committed
	block *proposed
	memo  *memory
	view  atomic.Pointer[View]
	pool  pool
	txs   txCache
	cache readCache
	feed  feed
	pins  *pins
}

// A proposed block has been executed and waits for Commit.
type proposed struct {
	writes *overlay
	block  Block
}

// OpenApp opens the chain's state, at the height of the last commit.
func OpenApp(c AppConfig) (*App, error) {
	if err := c.Genesis.Validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.memory == nil {
		c.memory = vfs.NewMem()
	}
	if c.quotes == nil {
		c.quotes = checkQuote
	}
	st, err := openStore(c.Dir, c.memory, c.Logger)
	if err != nil {
		return nil, err
	}
	if c.Protocol == 0 {
		c.Protocol = ProtocolVersion
	}
	a := &App{
		genesis: c.Genesis, audit: c.Audit, protocol: c.Protocol, log: c.Logger, quotes: c.quotes,
		store: st, pins: newPins(c.Logger),
	}
	a.pool.most = c.waiting
	if c.keep > 0 {
		st.keep = c.keep
	}
	if c.blocks > 0 {
		st.blocks = c.blocks
	}
	if err := a.resume(); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return a, nil
}

// resume checks that the store is of this chain and whole, and publishes it.
func (a *App) resume() error {
	if a.store.height > 0 {
		id, _ := identityTable.get(flat{a.store.db}, identityKey)
		if id.ChainID != a.genesis.ChainID {
			return fmt.Errorf("state is of chain %q, genesis is of %q: use another home", id.ChainID, a.genesis.ChainID)
		}
		if id.Genesis != a.genesis.Hash() {
			return fmt.Errorf("state is of another chain %q, with another genesis: use another home", id.ChainID)
		}
		if a.audit {
			if err := a.store.compare(); err != nil {
				return err
			}
		}
	} else {
		a.found()
	}
	a.cache.height = a.store.height
	a.memo = loadMemory(a.base())
	a.publish(a.store.height)
	return nil
}

// found computes the state of height 0 and returns the first validators.
func (a *App) found() []abci.ValidatorUpdate {
	s := newState(flat{a.store.db}, 0)
	updates := s.build(a.genesis)
	a.first = s.block
	return updates
}

// base is the state that the next block starts from.
func (a *App) base() source {
	if a.first != nil {
		return &state{base: flat{a.store.db}, block: a.first}
	}
	return flat{a.store.db}
}

// Close ends the App. Views stay usable for what they hold in memory and answer
// as if empty for the rest; Next fails with CodeStopped.
func (a *App) Close() error {
	a.feed.close()
	return errors.Join(a.pins.close(), a.store.close())
}

// Info tells CometBFT the last committed height, from which it replays.
func (a *App) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	v := a.View()
	version, _ := v.Protocol()
	return &abci.ResponseInfo{LastBlockHeight: v.height, LastBlockAppHash: v.hash, AppVersion: version}, nil
}

// InitChain founds the chain; the genesis document's validators are replaced by
// those of the App's own genesis, which all nodes share.
func (a *App) InitChain(_ context.Context, r *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	if r.ChainId != a.genesis.ChainID {
		return nil, fmt.Errorf("init chain %q: genesis is of %q", r.ChainId, a.genesis.ChainID)
	}
	updates := a.found()
	hash := a.store.stage(a.first)
	a.store.tree.Rollback()
	return &abci.ResponseInitChain{Validators: updates, AppHash: hash}, nil
}

// CheckTx lets a transaction wait for a block, or refuses it with a code and a
// sentence (spec §2.3).
func (a *App) CheckTx(_ context.Context, r *abci.RequestCheckTx) (res *abci.ResponseCheckTx, err error) {
	defer rescue(a.log, "check", func() { res = &abci.ResponseCheckTx{Code: CodeRefused, Log: "transaction cannot be checked"} })
	code, text := codeOf(a.pool.check(a.View(), &a.txs, r.Tx, r.Type == abci.CheckTxType_Recheck))
	return &abci.ResponseCheckTx{Code: code, Log: text}, nil
}

// Query answers path "/key" with what stands at the key in Data after the last
// height, and a proof of it or of its absence (spec §1.6). Code reads a [View].
func (a *App) Query(_ context.Context, r *abci.RequestQuery) (res *abci.ResponseQuery, err error) {
	defer rescue(a.log, "query", func() { res = &abci.ResponseQuery{Code: CodeRefused, Log: "the question cannot be answered"} })
	v := a.View()
	switch {
	case r.Path != "/key":
		return &abci.ResponseQuery{Code: CodeAbsent, Log: fmt.Sprintf("path %q: there is /key alone", r.Path)}, nil
	case r.Height != 0 && r.Height != v.height:
		return &abci.ResponseQuery{Code: CodeAbsent, Log: fmt.Sprintf("height %d: only the last, %d, is answered", r.Height, v.height)}, nil
	}
	p, err := v.prove(r.Data)
	if err != nil {
		code, text := codeOf(err)
		return &abci.ResponseQuery{Code: code, Log: text}, nil
	}
	op := cmtcrypto.ProofOp{Type: "ics23:iavl", Key: p.Key, Data: p.Proof}
	return &abci.ResponseQuery{Height: p.Height, Key: p.Key, Value: p.Value, ProofOps: &cmtcrypto.ProofOps{Ops: []cmtcrypto.ProofOp{op}}}, nil
}

// PrepareProposal orders a block: reports up to half of it, answers to draws, then
// the rest by what it pays for a byte; what would be refused unpaid is left out
// (spec §2.2).
func (a *App) PrepareProposal(_ context.Context, r *abci.RequestPrepareProposal) (res *abci.ResponsePrepareProposal, err error) {
	defer rescue(a.log, "prepare", func() { res = &abci.ResponsePrepareProposal{} })
	return &abci.ResponsePrepareProposal{Txs: a.arrange(r)}, nil
}

// ProcessProposal refuses only what no honest proposer sends, by the bytes of
// the block alone, so that all validators say the same.
func (a *App) ProcessProposal(_ context.Context, r *abci.RequestProcessProposal) (res *abci.ResponseProcessProposal, err error) {
	defer rescue(a.log, "process", func() {
		res = &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}
	})
	status := abci.ResponseProcessProposal_ACCEPT
	err = a.Halted() // what it cannot execute it does not vote for
	if err == nil {
		err = a.acceptable(r.Txs)
	}
	if err != nil {
		a.log.Warn("proposal refused", "height", r.Height, "err", err)
		status, err = abci.ResponseProcessProposal_REJECT, nil
	}
	return &abci.ResponseProcessProposal{Status: status}, err
}

// FinalizeBlock executes a decided block and returns its app hash. Nothing is
// kept until Commit. It never recovers from a panic: a chain whose rules broke
// has to stop.
func (a *App) FinalizeBlock(_ context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	if want := a.store.height + 1; r.Height != want {
		return nil, fmt.Errorf("block %d: the next is %d", r.Height, want)
	}
	s := a.open(r)
	if err := a.tooOld(s.protocol(), r.Height); err != nil {
		return nil, err
	}
	before := s.params
	results, updates := s.run(r)
	if a.audit {
		if err := audit(s); err != nil {
			panic(fmt.Sprintf("chain: height %d: %v", r.Height, err))
		}
	}
	hash := a.store.stage(s.block)
	a.block = &proposed{s.block, Block{
		Height: r.Height, Hash: s.hash, Time: r.Time.UTC(), Slot: s.slot(), First: s.params.startsSlot(r.Height),
		Txs: results, Events: s.events,
	}}
	out := &abci.ResponseFinalizeBlock{AppHash: hash, ValidatorUpdates: updates, ConsensusParamUpdates: consensusUpdate(before, s.params, s.version)}
	for _, x := range results {
		out.TxResults = append(out.TxResults, abciResult(x))
	}
	return out, nil
}

// open returns the state in which block r runs.
func (a *App) open(r *abci.RequestFinalizeBlock) *state {
	s := newState(cached{flat{a.store.db}, &a.cache, a.store.height}, r.Height)
	if a.first != nil {
		s.block.pairs = a.first.pairs.Clone()
	}
	s.time, s.quotes, s.txs = r.Time.Unix(), a.quotes, &a.txs
	copy(s.hash[:], r.Hash)
	s.chain = identityTable.must(s, identityKey)
	s.params = paramsTable.must(s, paramsKey)
	return s
}

// Commit makes the executed block durable, the tree first, then the view with
// its height, and shows it to readers.
func (a *App) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	p := a.block
	if p == nil {
		return nil, errors.New("commit: no block was executed")
	}
	if err := a.store.commit(p.writes, p.block); err != nil {
		return nil, err
	}
	a.first, a.block = nil, nil
	a.cache.advance(a.store.height, p.writes)
	a.memo.apply(flat{a.store.db}, p.writes)
	a.publish(p.block.Height)
	if err := a.store.prune(); err != nil {
		return nil, err
	}
	return &abci.ResponseCommit{}, nil // CometBFT keeps all blocks: newcomers replay them
}

// rescue turns a panic at the ABCI boundary into a refusal: input must not stop
// a node.
func rescue(log *slog.Logger, step string, refuse func()) {
	if p := recover(); p != nil {
		log.Error("panic", "step", step, "err", p)
		refuse()
	}
}
