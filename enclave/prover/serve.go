package prover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
	"golang.org/x/net/netutil"
)

// Bounds of the socket: what a host may ask of an enclave at once.
const (
	maxList     = 1 << 20          // bytes of a call that lists files
	maxCall     = 4 << 10          // bytes of any other, but for a block
	maxInFlight = 16               // calls read, worked on and answered at once; others wait unread
	maxConns    = 64               // connections; others wait to be accepted
	readTimeout = 30 * time.Second // for a call to arrive, and for its answer to be taken
	idleTimeout = 2 * time.Minute  // for the next call on a connection
)

// Serve answers calls on l until ctx ends, then lets those under way finish for
// a few seconds, and returns nil. It does not close the prover.
func (p *Prover) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		srv.Shutdown(wait)
		srv.Close()
	}()
	err := srv.Serve(netutil.LimitListener(l, maxConns))
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("prover: serve: %w", err)
	}
	<-ended
	return nil
}

// Handler answers POST /v1/<call> with CBOR bodies, as package mpow names them. A
// block travels bare: as the body of /v1/seal?root=…&block=…, and of the answer to
// open.
func (p *Prover) Handler() http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxInFlight)
	mux.HandleFunc("POST /v1/seal", inTurn(slots, p.serveSeal))
	mux.HandleFunc("POST /v1/open", inTurn(slots, p.serveOpen))
	handle(p, mux, slots, "info", func(ctx context.Context, c mpow.EmptyCall) (mpow.ProverInfo, error) { return p.Info(ctx) })
	handle(p, mux, slots, "attest", func(ctx context.Context, c mpow.AttestCall) (mpow.Register, error) {
		return p.Attest(ctx, c.ChainID, c.Account, c.Height, c.BlockHash)
	})
	handle(p, mux, slots, "begin", func(ctx context.Context, c mpow.BeginCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Begin(ctx, c.Root, c.MaxSize)
	})
	handle(p, mux, slots, "missing", func(ctx context.Context, c mpow.CIDCall) (mpow.CIDsReply, error) {
		list, err := p.Missing(ctx, c.CID)
		return mpow.CIDsReply{CIDs: list}, err
	})
	handle(p, mux, slots, "commit", func(ctx context.Context, c mpow.CIDCall) (mpow.NumberReply, error) {
		n, err := p.Commit(ctx, c.CID)
		return mpow.NumberReply{Number: n}, err
	})
	handle(p, mux, slots, "has", func(ctx context.Context, c mpow.CIDCall) (r mpow.NumberReply, err error) {
		has, err := p.Has(ctx, c.CID)
		if has {
			r.Number = 1
		}
		return r, err
	})
	handle(p, mux, slots, "size", func(ctx context.Context, c mpow.CIDCall) (mpow.NumberReply, error) {
		n, err := p.Size(ctx, c.CID)
		return mpow.NumberReply{Number: uint64(n)}, err
	})
	handle(p, mux, slots, "drop", func(ctx context.Context, c mpow.CIDCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Drop(ctx, c.CID)
	})
	handle(p, mux, slots, "files", func(ctx context.Context, c mpow.FilesCall) (mpow.FilesReply, error) {
		list, more, err := p.filesAfter(c.After, maxListed)
		return mpow.FilesReply{Files: list, More: more}, err
	})
	handle(p, mux, slots, "pending", func(ctx context.Context, c mpow.EmptyCall) (mpow.CIDsReply, error) {
		list, err := p.Pending(ctx)
		return mpow.CIDsReply{CIDs: list}, err
	})
	handle(p, mux, slots, "fill", func(ctx context.Context, c mpow.FillCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.FillSRD(ctx, c.Units)
	})
	handle(p, mux, slots, "report", func(ctx context.Context, c mpow.ReportCall) (mpow.Signed, error) {
		return p.Report(ctx, c.Slot, c.Seed, c.Head, c.List)
	})
	handle(p, mux, slots, "recover", func(ctx context.Context, c mpow.RecoverCall) (mpow.Recover, error) {
		return p.Recover(ctx, c.Generation, c.Slot, c.Seed)
	})
	handle(p, mux, slots, "verify", func(ctx context.Context, c mpow.CIDCall) (mpow.Verified, error) { return p.Verify(ctx, c.CID) })
	handle(p, mux, slots, "verify-srd", func(ctx context.Context, c mpow.EmptyCall) (mpow.Verified, error) { return p.VerifySRD(ctx) })
	handle(p, mux, slots, "target", func(ctx context.Context, c mpow.EmptyCall) (mpow.BytesReply, error) {
		b, err := p.Target(ctx)
		return mpow.BytesReply{Bytes: b}, err
	})
	handle(p, mux, slots, "offer", func(ctx context.Context, c mpow.OfferCall) (mpow.Offer, error) { return p.Offer(ctx, c.Target) })
	handle(p, mux, slots, "give", func(ctx context.Context, c mpow.GiveCall) (mpow.Gift, error) {
		return p.Give(ctx, c.Slot, c.Head, c.Release, c.Offer)
	})
	handle(p, mux, slots, "give-page", func(ctx context.Context, c mpow.PageCall) (mpow.BytesReply, error) {
		b, err := p.GivePage(ctx, c.Page)
		return mpow.BytesReply{Bytes: b}, err
	})
	handle(p, mux, slots, "take", func(ctx context.Context, c mpow.TakeCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Take(ctx, c.Release, c.Gift)
	})
	handle(p, mux, slots, "take-page", func(ctx context.Context, c mpow.TakePageCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.TakePage(ctx, c.Page, c.Data)
	})
	handle(p, mux, slots, "word", func(ctx context.Context, c mpow.WordCall) (mpow.BytesReply, error) {
		b, err := p.Word(ctx, c.Key, c.Measurement, c.Generation, c.Head)
		return mpow.BytesReply{Bytes: b}, err
	})
	handle(p, mux, slots, "abandon", func(ctx context.Context, c mpow.EmptyCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Abandon(ctx)
	})
	handle(p, mux, slots, "page", func(ctx context.Context, c mpow.PageCall) (mpow.Page, error) {
		return p.Page(ctx, c.Page)
	})
	return mux
}

// inTurn lets a call in when one of the slots is free, before a byte of its body
// is read, and gives its answer a time to be taken.
func inTurn(slots chan struct{}, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) // waiting was not its fault
		h(w, r)
	}
}

// handle decodes a call in its turn, and encodes what do answers.
func handle[C, R any](p *Prover, mux *http.ServeMux, slots chan struct{}, name string, do func(context.Context, C) (R, error)) {
	limit := int64(maxCall)
	switch any(*new(C)).(type) {
	case mpow.ReportCall, mpow.OfferCall, mpow.GiveCall, mpow.TakeCall, mpow.TakePageCall:
		limit = maxList
	}
	mux.HandleFunc("POST /v1/"+name, inTurn(slots, func(w http.ResponseWriter, r *http.Request) {
		var c C
		if !readCall(w, r, name, limit, &c) {
			return
		}
		reply, err := do(r.Context(), c)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, err)
			return
		}
		answer(w, http.StatusOK, reply)
	}))
}

// readCall reads and decodes the body of a call, or refuses it.
func readCall(w http.ResponseWriter, r *http.Request, name string, limit int64, c any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		status := http.StatusBadRequest
		if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, fmt.Errorf("%s: %w", name, err))
		return false
	}
	if err := mpow.DecodeCall(body, c); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("%s: %w", name, err))
		return false
	}
	return true
}

// blocks keeps buffers for blocks on their way. A block is a large thing to leave to
// the collector, and a sync.Pool gives it there at each of its turns. As many are
// kept as can be in use: a call has one for its block, and one for what is sealed.
var blocks = buffers{free: make(chan []byte, 2*maxInFlight)}

// buffers is a list of slices to be used again; what does not fit is dropped.
type buffers struct{ free chan []byte }

// sealedMore is what sealing adds to a block, at most: header, hash and tag.
const sealedMore = 512

// get returns a slice of n bytes, of any content.
func (b buffers) get(n int) []byte {
	select {
	case buf := <-b.free:
		if cap(buf) >= n {
			return buf[:n]
		}
	default:
	}
	const step = 64 << 10
	return make([]byte, n, (n+step-1)/step*step+sealedMore)
}

func (b buffers) put(buf []byte) {
	select {
	case b.free <- buf:
	default:
	}
}

func (p *Prover) serveSeal(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	root, err := cid.Decode(q.Get("root"))
	block, blockErr := cid.Decode(q.Get("block"))
	if err = errors.Join(err, blockErr); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("seal: %w", err))
		return
	}
	if r.ContentLength < 0 || r.ContentLength > mpow.MaxBlock {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("seal %v: %w", root, unsealable("block of %d bytes, at most %d are allowed", r.ContentLength, mpow.MaxBlock)))
		return
	}
	data := blocks.get(int(r.ContentLength))
	defer blocks.put(data)
	if _, err := io.ReadFull(r.Body, data); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("seal %v: block %v: %w", root, block, err))
		return
	}
	if err := p.Seal(r.Context(), root, block, data); err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	answer(w, http.StatusOK, mpow.EmptyCall{})
}

func (p *Prover) serveOpen(w http.ResponseWriter, r *http.Request) {
	var c mpow.CIDCall
	if !readCall(w, r, "open", maxCall, &c) {
		return
	}
	n, err := p.Size(r.Context(), c.CID)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	buf := blocks.get(n + tagSize)
	defer blocks.put(buf)
	data, err := p.openInto(buf, c.CID)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	write(w, http.StatusOK, "application/octet-stream", data)
}

func refuse(w http.ResponseWriter, status int, err error) {
	answer(w, status, mpow.FailureOf(err))
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := mpow.Encode(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, status, "application/cbor", body)
}

// write sends a whole answer; who does not take it in time is hung up on.
func write(w http.ResponseWriter, status int, kind string, body []byte) {
	// A recorder of tests has no deadline, and needs none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readTimeout))
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
