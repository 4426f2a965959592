package node

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lode-node/lode/chain"
)

// Bounds of the admin API.
const (
	maxBody   = 4 << 20          // bytes of a request
	readTime  = 10 * time.Second // for head and body of a request
	writeTime = 90 * time.Second // for a whole answer, a transaction's wait included
	txTime    = 60 * time.Second // for a block to hold a transaction
)

// A failure is an answer that is no 200.
type failure struct {
	status int
	code   uint32
	text   string
}

func (f *failure) Error() string { return f.text }

func badRequest(format string, args ...any) error {
	return &failure{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &failure{status: http.StatusNotFound, code: chain.CodeAbsent, text: fmt.Sprintf(format, args...)}
}

// api returns the handler of `/lode/v1` and the metrics.
func (n *Node) api() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(*http.Request) (any, error)) {
		mux.HandleFunc("GET /lode/v1/"+path, answer(f))
	}
	get("status", func(*http.Request) (any, error) { return n.Status(), nil })
	get("params", n.getParams)
	get("genesis", n.getGenesis)
	get("tx/{hash}", n.getTx)
	get("accounts/{id}", n.getAccount)
	get("accounts/{id}/pending", n.getPending)
	get("accounts/{id}/history", n.getAccountHistory)
	get("history", n.getChainHistory)
	get("quote", n.getQuote)
	get("orders", n.getOrders)
	get("orders/{cid}", n.getOrder)
	get("orders/{cid}/history", n.getOrderHistory)
	get("holders/{cid}", n.getHolders)
	get("nodes", n.getNodes)
	get("nodes/{id}", n.getNode)
	get("draws", n.getDraws)
	get("groups/{id}", n.getGroup)
	get("stake/{id}", n.getStake)
	get("stake/{id}/payouts", n.getPayouts)
	get("limit", n.getLimit)
	get("era", n.getEra)
	get("validators", n.getValidators)
	get("peers", n.getPeers)
	get("peers/{id}", n.getRank)
	get("check/{cid}", n.getCheck)
	get("supply", n.getSupply)
	get("credit", n.getTabSum)
	get("credit/{id}", n.getCredit)
	get("tabs", n.getTabs)
	get("fetches", n.getFetches)
	get("serving", n.getServing)
	get("receipts", n.getReceipts)
	get("fetches/{number}", n.getFetch)
	get("collateral", n.getCollateral)
	get("prover", n.getProver)
	get("prover/files", n.getProverFiles)
	get("proof/accounts/{id}", n.getAccountProof)
	get("proof/nodes/{id}", n.getNodeProof)
	get("proof/orders/{cid}", n.getOrderProof)
	get("proof/holders/{cid}", n.getHolderProofs)
	get("proof/credit/{id}", n.getCreditProof)
	get("proof/tabs/{id}", n.getTabProof)
	get("light/{number}", n.getLight)
	get("gov/proposals", n.getProposals)
	get("gov/proposals/{number}", n.getProposal)
	get("gov/params", n.getNamedParams)
	get("gov/protocol", n.getProtocol)
	get("gov/enclaves", n.getEnclaves)
	mux.HandleFunc("POST /lode/v1/tx", answer(n.postTx))
	mux.HandleFunc("POST /lode/v1/recover", answer(n.postRecover))
	mux.HandleFunc("POST /lode/v1/prover/verify", answer(n.postVerify))
	mux.HandleFunc("POST /lode/v1/prover/srd", answer(n.postSRD))
	mux.HandleFunc("POST /lode/v1/prover/upgrade", answer(n.postUpgrade))
	mux.HandleFunc("POST /lode/v1/prover/abandon", answer(n.postAbandon))
	mux.HandleFunc("POST /lode/v1/receipts/claim", answer(n.postClaim))
	mux.HandleFunc("POST /lode/v1/debug/fault", answer(n.postFault))
	mux.Handle("GET /lode/v1/metrics", promhttp.HandlerFor(n.metrics.reg, promhttp.HandlerOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/", answer(func(r *http.Request) (any, error) {
		return nil, notFound("%s %s: no such thing; the API is under /lode/v1/", r.Method, r.URL.Path)
	}))
	return mux
}

// answer writes what f returns as JSON.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r)
		status := http.StatusOK
		if err != nil {
			var e ErrorAnswer
			status, e = refusal(err)
			v = e
		}
		b, err := json.Marshal(v)
		if err != nil {
			panic("node: answer " + r.URL.Path + ": " + err.Error())
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(b, '\n')) // a client that went away needs no answer
	}
}

// refusal maps an error to a status and what the body says.
func refusal(err error) (int, ErrorAnswer) {
	var f *failure
	var c *chain.Error
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f.status, ErrorAnswer{Error: f.text, Code: f.code}
	case errors.As(err, &c):
		status := http.StatusUnprocessableEntity
		switch c.Code {
		case chain.CodeAbsent:
			status = http.StatusNotFound
		case chain.CodeStopped:
			status = http.StatusServiceUnavailable
		}
		return status, ErrorAnswer{Error: err.Error(), Code: c.Code}
	case errors.As(err, &big):
		return http.StatusRequestEntityTooLarge, ErrorAnswer{Error: fmt.Sprintf("body of more than %d bytes", big.Limit), Code: chain.CodeSize}
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, ErrorAnswer{Error: err.Error()}
	}
	return http.StatusInternalServerError, ErrorAnswer{Error: err.Error()}
}

// pathID reads an account from the path.
func pathID(r *http.Request) (peer.ID, error) {
	id, err := peer.Decode(r.PathValue("id"))
	if err != nil {
		return "", badRequest("account %q: %v", r.PathValue("id"), err)
	}
	return id, nil
}

// pathCID reads a root from the path; a CIDv0 means the CIDv1 of the same hash
// (spec §1.3).
func pathCID(r *http.Request) (cid.Cid, error) {
	c, err := cid.Decode(r.PathValue("cid"))
	if err != nil {
		return cid.Undef, badRequest("cid %q: %v", r.PathValue("cid"), err)
	}
	if c.Version() == 0 {
		c = cid.NewCidV1(c.Type(), c.Hash())
	}
	return c, nil
}

// queryNumber reads a number that must be there.
func queryNumber(r *http.Request, name string) (uint64, error) {
	s := r.URL.Query().Get(name)
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, badRequest("%s=%q: want a whole number", name, s)
	}
	return v, nil
}

// queryAccount reads an account that may be left out: then it is empty.
func queryAccount(r *http.Request, name string) (peer.ID, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return "", nil
	}
	id, err := peer.Decode(s)
	if err != nil {
		return "", badRequest("%s=%q: %v", name, s, err)
	}
	return id, nil
}

// postTx sends a signed transaction, to replace one that waits if so asked, and
// waits for its block.
func (n *Node) postTx(r *http.Request) (any, error) {
	tx, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if len(tx) == 0 {
		return nil, badRequest("no transaction in the body")
	}
	var old [32]byte
	if s := r.URL.Query().Get("replace"); s != "" {
		if old, err = hashOf(s); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), txTime)
	defer cancel()
	res, err := n.chain.Replace(ctx, tx, old)
	if err != nil {
		return nil, err
	}
	return txAnswer(res), nil
}

// getTx answers from the blocks that this node keeps.
func (n *Node) getTx(r *http.Request) (any, error) {
	hash, err := hashOf(r.PathValue("hash"))
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	res, ok := v.Tx(hash)
	if !ok {
		return nil, notFound("transaction %x: in no block that this node keeps, up to height %d", hash, v.Height())
	}
	return txAnswer(res), nil
}

// hashOf reads the hash of a transaction.
func hashOf(s string) (hash [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(hash) {
		return hash, badRequest("hash %q: want %d hexadecimal digits", s, 2*len(hash))
	}
	return [32]byte(b), nil
}

// postFault switches a fault, where the genesis allows simulated enclaves.
func (n *Node) postFault(r *http.Request) (any, error) {
	v := n.chain.View()
	if !v.Params().Mpow.AllowSimulated {
		return nil, &failure{status: http.StatusForbidden, text: "faults exist only on devnets, where simulated enclaves are allowed"}
	}
	var q struct {
		Fault string `json:"fault"`
		On    bool   `json:"on"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, badRequest("body: %v", err)
	}
	if err := n.faults.Set(q.Fault, q.On); err != nil {
		return nil, badRequest("%v", err)
	}
	n.log.Warn("fault switched", "fault", q.Fault, "on", q.On)
	return struct {
		Height int64    `json:"height"`
		Faults []string `json:"faults"`
	}{v.Height(), n.faults.On()}, nil
}

// listenAPI opens the socket of the home, and TCP where the settings say so.
// A socket left by a killed process is replaced: the home's lock says that
// nobody serves it.
func (n *Node) listenAPI() error {
	if n.home != nil {
		path := n.home.Path(fileSocket)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("api: %w", err)
		}
		if len(path) > maxSocket {
			return fmt.Errorf("api: the path %s has %d bytes, a socket's may have %d: choose a shorter --home", path, len(path), maxSocket)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return fmt.Errorf("api: %w", err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return errors.Join(fmt.Errorf("api: %w", err), l.Close())
		}
		n.serve("api", l, n.api())
	}
	if n.c.API.Listen == "" {
		return nil
	}
	if n.home == nil {
		return errors.New("api.listen: without a home there is no token to ask for")
	}
	host, _, err := net.SplitHostPort(n.c.API.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("api.listen %q: want a loopback address with a port", n.c.API.Listen)
	}
	token, err := n.home.Token()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", n.c.API.Listen)
	if err != nil {
		return fmt.Errorf("api.listen: %w", err)
	}
	n.apiAddr, n.token = l.Addr().String(), token
	n.serve("api", l, guarded(token, n.api()))
	return nil
}

// maxSocket is how long the path of a Unix socket may be, in bytes.
const maxSocket = 107

// guarded lets only those pass who know the token.
func guarded(token string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
			answer(func(*http.Request) (any, error) {
				return nil, &failure{status: http.StatusUnauthorized, text: "this API wants the bearer token in api.token of the node's home"}
			})(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
