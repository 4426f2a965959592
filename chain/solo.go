package chain

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A Status is how a driver is doing.
type Status struct {
	Height     int64  `json:"height"`
	AppHash    []byte `json:"app_hash"`
	CatchingUp bool   `json:"catching_up"`
	Validator  bool   `json:"validator"`         // this node is in the validator set
	Peers      int    `json:"peers"`             // connected for consensus
	Stopped    string `json:"stopped,omitempty"` // why no blocks are made any more; empty while they are
}

// A SoloConfig says which chain a [Solo] drives, and as whom.
type SoloConfig struct {
	App     *App    // the state to drive; nil opens one from the fields below
	Dir     string  // with App nil, as in [AppConfig]
	Genesis Genesis // with App nil
	Audit   bool    // with App nil
	// Protocol is as in [AppConfig], with App nil.
	Protocol uint64
	Logger   *slog.Logger

	Key crypto.PrivKey // who Submit signs as; nil: nobody, use As
	// Interval is the time between the blocks that Run makes. Zero means blocks
	// on demand: each Submit makes one, and each call of Block.
	Interval time.Duration
}

// A Solo makes blocks alone for the same [App] that CometBFT drives: for tests
// and single nodes. All validators count as signing; block times are those of
// genesis plus BlockTime a height, so equal transactions give equal hashes.
// It is safe for concurrent use.
type Solo struct {
	*soloChain
	wallet *wallet // nil: cannot Submit
}

// A soloChain is what all clients of one Solo share.
type soloChain struct {
	app      *App
	own      bool // Close closes app
	interval time.Duration

	mu      sync.Mutex // one block at a time; guards the fields below
	pool    [][]byte
	waiting map[[32]byte]chan TxResult
	powers  map[string]int64 // consensus key → power
	order   []string         // of powers, as they came
	closed  bool
}

// NewSolo opens the chain; it starts nothing.
func NewSolo(c SoloConfig) (*Solo, error) {
	app, own := c.App, false
	if app == nil {
		var err error
		if app, err = OpenApp(AppConfig{Dir: c.Dir, Genesis: c.Genesis, Audit: c.Audit, Logger: c.Logger, Protocol: c.Protocol}); err != nil {
			return nil, err
		}
		own = true
	}
	s := &Solo{soloChain: &soloChain{
		app: app, own: own, interval: c.Interval,
		waiting: map[[32]byte]chan TxResult{}, powers: map[string]int64{},
	}}
	s.update(validatorSet(app.View().source)) // as CometBFT remembers it
	if app.View().Height() == 0 {
		r, err := app.InitChain(context.Background(), &abci.RequestInitChain{ChainId: app.genesis.ChainID, Time: app.genesis.Time})
		if err != nil {
			return nil, err
		}
		s.update(r.Validators)
	}
	if c.Key != nil {
		var err error
		if s.wallet, err = newWallet(c.Key); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// As returns a client of the same chain that signs with another key.
func (s *Solo) As(key crypto.PrivKey) (*Solo, error) {
	w, err := newWallet(key)
	if err != nil {
		return nil, err
	}
	return &Solo{s.soloChain, w}, nil
}

// Run makes a block each Interval until ctx ends. With Interval zero it only
// waits for ctx.
func (s *Solo) Run(ctx context.Context) error {
	if s.interval == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(s.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.Block()
		}
	}
}

// Submit signs m with this client's key and returns once a block holds it. An
// error is the rule that refused it; the result is then zero, or what the block
// says.
func (s *Solo) Submit(ctx context.Context, m Msg) (TxResult, error) {
	if s.wallet == nil {
		return TxResult{}, errors.New("submit: this client has no key")
	}
	var done <-chan TxResult
	_, err := s.wallet.submit(s.View, s.Queue, m, func(tx []byte) (err error) {
		done, err = s.enter(tx, new([32]byte))
		return err
	})
	if err != nil {
		return TxResult{}, err
	}
	return s.await(ctx, done)
}

// SubmitTx is Submit for a transaction that somebody has signed. It takes no
// other's place: when another waits with its nonce the error is of CodeTaken.
func (s *Solo) SubmitTx(ctx context.Context, tx []byte) (TxResult, error) {
	return s.Replace(ctx, tx, [32]byte{})
}

// Replace is SubmitTx for a transaction that takes the place of old, which waits
// with the nonce of tx and pays less (spec §2.2); zero is none.
func (s *Solo) Replace(ctx context.Context, tx []byte, old [32]byte) (TxResult, error) {
	done, err := s.enter(tx, &old)
	if err != nil {
		return TxResult{}, err
	}
	return s.await(ctx, done)
}

// Queue returns what waits of the account id. It may be called concurrently.
func (s *Solo) Queue(id peer.ID) Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.app.Queue(id)
}

// Pool returns what waits. It may be called concurrently.
func (s *Solo) Pool() PoolStatus { return s.app.Pool() }

// Enter lets a signed transaction wait for the next block without making one, as
// one that another node passes on.
func (s *Solo) Enter(tx []byte) error {
	_, err := s.enter(tx, nil)
	return err
}

// enter lets tx wait: as one from another node if old is nil, else one that may take
// the place of old, or of none if that is zero.
func (s *soloChain) enter(tx []byte, old *[32]byte) (<-chan TxResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, refuse(CodeStopped, "the chain of this node is closed")
	}
	if err := s.app.Halted(); err != nil {
		return nil, refuse(CodeStopped, "%v", err)
	}
	hash := sha256.Sum256(tx)
	if old != nil {
		defer s.app.Door(hash, *old)()
	}
	r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	if err != nil {
		return nil, err
	}
	if r.Code != CodeOK {
		return nil, &Error{Code: r.Code, Text: r.Log}
	}
	done, ok := s.waiting[hash]
	if !ok {
		done = make(chan TxResult, 1)
		s.waiting[hash] = done
		s.pool = append(s.pool, tx)
	}
	return done, nil
}

func (s *Solo) await(ctx context.Context, done <-chan TxResult) (TxResult, error) {
	if s.interval == 0 {
		s.Block()
	}
	select {
	case r, ok := <-done:
		if !ok {
			return TxResult{}, refuse(CodeStopped, "the chain of this node closed before a block held the transaction")
		}
		return r, r.Err()
	case <-ctx.Done():
		return TxResult{}, fmt.Errorf("waiting for a block: %w", ctx.Err())
	}
}

// Block makes the next block from what waits and returns it. A chain that cannot
// go on panics, as a CometBFT node would stop. After Close, and when a newer
// build has to go on (see [App.Halted]), it returns the zero Block.
func (s *Solo) Block() Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.app.Halted() != nil {
		return Block{}
	}
	ctx, v := context.Background(), s.app.View()
	h := v.Height() + 1
	at := s.app.genesis.Time.Add(time.Duration(h*v.Params().BlockTime) * time.Millisecond)
	prepared, err := s.app.PrepareProposal(ctx, &abci.RequestPrepareProposal{Txs: s.pool, MaxTxBytes: v.Params().BlockBytes - 64<<10, Height: h, Time: at})
	must(err)
	hash := sha256.New()
	hash.Write(v.AppHash())
	hash.Write(binary.BigEndian.AppendUint64(nil, uint64(h)))
	for _, tx := range prepared.Txs {
		sum := sha256.Sum256(tx)
		hash.Write(sum[:])
	}
	id := hash.Sum(nil)
	accepted, err := s.app.ProcessProposal(ctx, &abci.RequestProcessProposal{Txs: prepared.Txs, Hash: id, Height: h, Time: at})
	must(err)
	if accepted.Status != abci.ResponseProcessProposal_ACCEPT {
		panic("chain: solo: the App refuses its own proposal")
	}
	proposer, commit := s.commit(h)
	final, err := s.app.FinalizeBlock(ctx, &abci.RequestFinalizeBlock{
		Txs: prepared.Txs, DecidedLastCommit: commit, Hash: id, Height: h, Time: at, ProposerAddress: proposer,
	})
	must(err)
	_, err = s.app.Commit(ctx, &abci.RequestCommit{})
	must(err)
	s.update(final.ValidatorUpdates)
	b, _ := s.app.View().Block(h)
	s.settle(b)
	return b
}

// settle answers those whose transaction is in b and checks again what is left,
// as CometBFT does; what no longer passes is answered with the reason.
func (s *soloChain) settle(b Block) {
	answer := func(r TxResult) {
		if done, ok := s.waiting[r.Hash]; ok {
			done <- r
			delete(s.waiting, r.Hash)
		}
	}
	for _, r := range b.Txs {
		answer(r)
	}
	var left [][]byte
	for _, tx := range s.pool {
		hash := sha256.Sum256(tx)
		if _, ok := s.waiting[hash]; !ok {
			continue
		}
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx, Type: abci.CheckTxType_Recheck})
		must(err)
		if r.Code != CodeOK {
			answer(TxResult{Hash: hash, Height: b.Height, Code: r.Code, Log: r.Log})
			continue
		}
		left = append(left, tx)
	}
	s.pool = left
}

// commit returns who proposes height h, in turn, and that all signed the block
// before.
func (s *soloChain) commit(h int64) ([]byte, abci.CommitInfo) {
	var info abci.CommitInfo
	for _, key := range s.order {
		info.Votes = append(info.Votes, abci.VoteInfo{
			Validator:   abci.Validator{Address: ed25519.PubKey(key).Address(), Power: s.powers[key]},
			BlockIdFlag: 2, // committed
		})
	}
	proposer := info.Votes[h%int64(len(info.Votes))].Validator.Address
	if h == 1 {
		info.Votes = nil // nobody signed a block before the first
	}
	return proposer, info
}

func (s *soloChain) update(changes []abci.ValidatorUpdate) {
	for _, u := range changes {
		key := string(u.PubKey.GetEd25519())
		if _, ok := s.powers[key]; !ok {
			s.order = append(s.order, key)
		}
		s.powers[key] = u.Power
	}
	var order []string
	for _, key := range s.order {
		if s.powers[key] > 0 {
			order = append(order, key)
		} else {
			delete(s.powers, key)
		}
	}
	s.order = order
}

// App returns the state that this chain drives.
func (s *soloChain) App() *App { return s.app }

// View returns the last committed height.
func (s *soloChain) View() *View { return s.app.View() }

// Next is [App.Next].
func (s *soloChain) Next(ctx context.Context, height int64) (Block, error) {
	return s.app.Next(ctx, height)
}

// Status says that all is well, or that the chain is closed.
func (s *soloChain) Status() Status {
	v := s.View()
	st := Status{Height: v.Height(), AppHash: v.AppHash(), Validator: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.app.Halted(); err != nil {
		st.Stopped = err.Error()
	}
	if s.closed {
		st.Stopped = "closed"
	}
	return st
}

// Close ends the chain for all its clients; those who wait are told. An App that
// was given stays open.
func (s *soloChain) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for hash, done := range s.waiting {
		close(done)
		delete(s.waiting, hash)
	}
	if s.own {
		return s.app.Close()
	}
	return nil
}

func must(err error) {
	if err != nil {
		panic("chain: solo: " + err.Error())
	}
}
