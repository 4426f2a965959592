package prover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/lode-node/lode/mpow"
)

// Bounds of the socket: what a host may ask of an enclave at once.
const (
	maxCall     = mpow.MaxBlock + 64<<10 // bytes of one call
	maxInFlight = 16                     // calls worked on at once; others wait
	readTimeout = 30 * time.Second       // for a call to arrive
)

// Serve answers calls on l until ctx ends, then lets those under way finish for
// a few seconds, and returns nil. It does not close the prover.
func (p *Prover) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, MaxHeaderBytes: 16 << 10,
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
	err := srv.Serve(l)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("prover: serve: %w", err)
	}
	<-ended
	return nil
}

// Handler answers POST /v1/<call> with CBOR bodies, as package mpow names them.
func (p *Prover) Handler() http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxInFlight)
	handle(p, mux, slots, "info", func(ctx context.Context, c mpow.EmptyCall) (mpow.ProverInfo, error) { return p.Info(ctx) })
	handle(p, mux, slots, "attest", func(ctx context.Context, c mpow.AttestCall) (mpow.Register, error) {
		return p.Attest(ctx, c.ChainID, c.Account, c.Height, c.BlockHash)
	})
	handle(p, mux, slots, "begin", func(ctx context.Context, c mpow.BeginCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Begin(ctx, c.Root, c.MaxSize)
	})
	handle(p, mux, slots, "seal", func(ctx context.Context, c mpow.SealCall) (mpow.EmptyCall, error) {
		return mpow.EmptyCall{}, p.Seal(ctx, c.Root, c.Block, c.Data)
	})
	handle(p, mux, slots, "missing", func(ctx context.Context, c mpow.CIDCall) (mpow.CIDsReply, error) {
		list, err := p.Missing(ctx, c.CID)
		return mpow.CIDsReply{CIDs: list}, err
	})
	handle(p, mux, slots, "commit", func(ctx context.Context, c mpow.CIDCall) (mpow.NumberReply, error) {
		n, err := p.Commit(ctx, c.CID)
		return mpow.NumberReply{Number: n}, err
	})
	handle(p, mux, slots, "open", func(ctx context.Context, c mpow.CIDCall) (mpow.DataReply, error) {
		data, err := p.Open(ctx, c.CID)
		return mpow.DataReply{Data: data}, err
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
	handle(p, mux, slots, "files", func(ctx context.Context, c mpow.EmptyCall) (mpow.FilesReply, error) {
		list, err := p.Files(ctx)
		return mpow.FilesReply{Files: list}, err
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
	handle(p, mux, slots, "page", func(ctx context.Context, c mpow.PageCall) (mpow.Page, error) {
		return p.Page(ctx, c.Page)
	})
	return mux
}

// handle decodes a call, waits for its turn, and encodes what do answers.
func handle[C, R any](p *Prover, mux *http.ServeMux, slots chan struct{}, name string, do func(context.Context, C) (R, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
		if err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("%s: %w", name, err))
			return
		}
		var c C
		if err := mpow.DecodeCall(body, &c); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("%s: %w", name, err))
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		reply, err := do(r.Context(), c)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, err)
			return
		}
		answer(w, http.StatusOK, reply)
	})
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
	w.Header().Set("Content-Type", "application/cbor")
	w.WriteHeader(status)
	w.Write(body)
}
