// Package enclave is what a node says to a prover in another process: HTTP over
// a Unix socket, with CBOR bodies, and blocks bare. A [Client] has the methods of the prover
// itself, so a node need not know which of the two it was given.
package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// How long a call may take when its context says nothing, and how much an
// answer may weigh.
const (
	quick     = 30 * time.Second
	slow      = 15 * time.Minute // checks, syncs and fills read and write whole files
	maxAnswer = 64 << 20         // bytes
)

// A Client calls a prover. It is safe for concurrent use. A call fails with the
// prover's own error, or with one that wraps what the network said: then it is
// unknown whether the prover did it, and every call may be made again.
type Client struct {
	http *http.Client
}

// New returns a client of the prover that listens on a Unix socket. It connects
// when it is first used.
func New(socket string) *Client {
	var d net.Dialer
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, err
			}
			return conn{c}, nil
		},
		MaxIdleConnsPerHost: 16, MaxConnsPerHost: 16, IdleConnTimeout: time.Minute, DisableCompression: true,
		// Small: what is larger goes to and from the caller's own bytes, without a copy.
		WriteBufferSize: 4 << 10, ReadBufferSize: 4 << 10,
	}}}
}

// A conn sends a body in one piece, where net/http would copy it through a buffer
// of its own, piece by piece.
type conn struct{ net.Conn }

// ReadFrom implements io.ReaderFrom.
func (c conn) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok { // of the length that the body itself has: see post
		if body, ok := l.R.(io.WriterTo); ok {
			return body.WriteTo(c.Conn)
		}
	}
	return io.Copy(c.Conn, r)
}

// Close drops idle connections. It does not end the prover.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// call sends in and decodes the answer into out.
func (c *Client) call(ctx context.Context, limit time.Duration, name string, in, out any) error {
	body, err := mpow.Encode(in)
	if err != nil {
		return fmt.Errorf("prover: %s: %w", name, err)
	}
	answer, err := c.post(ctx, limit, name, "", body)
	if err != nil {
		return err
	}
	if err := mpow.DecodeCall(answer, out); err != nil {
		return fmt.Errorf("prover: %s: answer: %w", name, err)
	}
	return nil
}

// post sends a body and returns the body of the answer, or the prover's refusal.
func (c *Client) post(ctx context.Context, limit time.Duration, name, query string, body []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://prover/v1/"+name+query, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("prover: %s: %w", name, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("prover: %s: %w", name, err)
	}
	defer res.Body.Close()
	answer, err := read(res)
	if err != nil {
		return nil, fmt.Errorf("prover: %s: %w", name, err)
	}
	if res.StatusCode != http.StatusOK {
		var f mpow.Failure
		if err := mpow.DecodeCall(answer, &f); err != nil {
			return nil, fmt.Errorf("prover: %s: %s", name, res.Status)
		}
		return nil, f.Err()
	}
	return answer, nil
}

// read returns the body of an answer, in one piece of its own size when it says
// its size.
func read(res *http.Response) ([]byte, error) {
	if res.ContentLength > maxAnswer {
		return nil, errors.New("answer is too long")
	}
	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("answer is too long")
	}
	return body, err
}

// Info says what the prover is and holds.
func (c *Client) Info(ctx context.Context) (out mpow.ProverInfo, err error) {
	err = c.call(ctx, quick, "info", mpow.EmptyCall{}, &out)
	return out, err
}

// Attest returns the registration of the prover's key for account (spec §3.2).
func (c *Client) Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (out mpow.Register, err error) {
	in := mpow.AttestCall{ChainID: chainID, Account: account, Height: height, BlockHash: blockHash}
	err = c.call(ctx, quick, "attest", in, &out)
	return out, err
}

// Begin opens a replica of root that may grow to maxSize bytes.
func (c *Client) Begin(ctx context.Context, root cid.Cid, maxSize uint64) error {
	return c.call(ctx, quick, "begin", mpow.BeginCall{Root: root, MaxSize: maxSize}, &mpow.EmptyCall{})
}

// Seal stores one block of root.
func (c *Client) Seal(ctx context.Context, root, block cid.Cid, data []byte) error {
	_, err := c.post(ctx, quick, "seal", "?root="+root.String()+"&block="+block.String(), data)
	return err
}

// Missing returns blocks that are linked and not sealed, at most 1024.
func (c *Client) Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	var out mpow.CIDsReply
	err := c.call(ctx, slow, "missing", mpow.CIDCall{CID: root}, &out)
	return out.CIDs, err
}

// Commit makes the file one of those held and returns its size in bytes.
func (c *Client) Commit(ctx context.Context, root cid.Cid) (uint64, error) {
	var out mpow.NumberReply
	err := c.call(ctx, slow, "commit", mpow.CIDCall{CID: root}, &out)
	return out.Number, err
}

// Open returns the plaintext of a block, or mpow.ErrAbsent.
func (c *Client) Open(ctx context.Context, block cid.Cid) ([]byte, error) {
	body, err := mpow.Encode(mpow.CIDCall{CID: block})
	if err != nil {
		return nil, fmt.Errorf("prover: open: %w", err)
	}
	return c.post(ctx, quick, "open", "", body)
}

// Has reports whether a whole file holds the block.
func (c *Client) Has(ctx context.Context, block cid.Cid) (bool, error) {
	var out mpow.NumberReply
	err := c.call(ctx, quick, "has", mpow.CIDCall{CID: block}, &out)
	return out.Number == 1, err
}

// Size returns the bytes of a block, or mpow.ErrAbsent.
func (c *Client) Size(ctx context.Context, block cid.Cid) (int, error) {
	var out mpow.NumberReply
	err := c.call(ctx, quick, "size", mpow.CIDCall{CID: block}, &out)
	return int(out.Number), err
}

// Drop forgets a file.
func (c *Client) Drop(ctx context.Context, root cid.Cid) error {
	return c.call(ctx, slow, "drop", mpow.CIDCall{CID: root}, &mpow.EmptyCall{})
}

// Files returns the whole files now held, by root. It asks for them in parts: what
// comes or goes meanwhile may be in it or not.
func (c *Client) Files(ctx context.Context) ([]mpow.File, error) {
	var all []mpow.File
	for {
		var in mpow.FilesCall
		var out mpow.FilesReply
		if len(all) > 0 {
			in.After = all[len(all)-1].Root.Bytes()
		}
		if err := c.call(ctx, quick, "files", in, &out); err != nil {
			return nil, err
		}
		if len(out.Files) > 0 && bytes.Compare(out.Files[0].Root.Bytes(), in.After) <= 0 || len(out.Files) == 0 && out.More {
			return nil, errors.New("prover: files: the parts do not follow one another")
		}
		if all = append(all, out.Files...); !out.More {
			return all, nil
		}
	}
}

// Pending returns the roots of replicas under construction.
func (c *Client) Pending(ctx context.Context) ([]cid.Cid, error) {
	var out mpow.CIDsReply
	err := c.call(ctx, quick, "pending", mpow.EmptyCall{}, &out)
	return out.CIDs, err
}

// FillSRD makes or sheds units of sealed random data until there are so many.
func (c *Client) FillSRD(ctx context.Context, units int) error {
	return c.call(ctx, slow, "fill", mpow.FillCall{Units: units}, &mpow.EmptyCall{})
}

// Report checks a sample and signs the report of a slot.
func (c *Client) Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (out mpow.Signed, err error) {
	in := mpow.ReportCall{Slot: slot, Seed: seed, Head: head, List: list}
	err = c.call(ctx, slow, "report", in, &out)
	return out, err
}

// Recover signs that the prover begins a new generation with what it holds.
func (c *Client) Recover(ctx context.Context, generation uint64, slot mpow.Slot, seed [32]byte) (out mpow.Recover, err error) {
	err = c.call(ctx, slow, "recover", mpow.RecoverCall{Generation: generation, Slot: slot, Seed: seed}, &out)
	return out, err
}

// Page signs one page of the files of the last recovery, or answers mpow.ErrAbsent.
func (c *Client) Page(ctx context.Context, number uint64) (out mpow.Page, err error) {
	err = c.call(ctx, quick, "page", mpow.PageCall{Page: number}, &out)
	return out, err
}

// Verify has every block of a whole file read and opened.
func (c *Client) Verify(ctx context.Context, root cid.Cid) (out mpow.Verified, err error) {
	err = c.call(ctx, slow, "verify", mpow.CIDCall{CID: root}, &out)
	return out, err
}

// VerifySRD has every leaf of every unit of random data read and opened.
func (c *Client) VerifySRD(ctx context.Context) (out mpow.Verified, err error) {
	err = c.call(ctx, slow, "verify-srd", mpow.EmptyCall{}, &out)
	return out, err
}

// Target returns a report that another prover on this machine makes its offer to
// (spec §3.9, as all that follows).
func (c *Client) Target(ctx context.Context) ([]byte, error) {
	var out mpow.BytesReply
	err := c.call(ctx, quick, "target", mpow.EmptyCall{}, &out)
	return out.Bytes, err
}

// Offer asks a fresh prover to be ready to take over from the one of target.
func (c *Client) Offer(ctx context.Context, target []byte) (out mpow.Offer, err error) {
	err = c.call(ctx, quick, "offer", mpow.OfferCall{Target: target}, &out)
	return out, err
}

// Give asks an old prover to begin handing over.
func (c *Client) Give(ctx context.Context, slot mpow.Slot, head mpow.Head, release mpow.Release, offer mpow.Offer) (out mpow.Gift, err error) {
	err = c.call(ctx, slow, "give", mpow.GiveCall{Slot: slot, Head: head, Release: release, Offer: offer}, &out)
	return out, err
}

// GivePage returns one page of what is handed over, from 0.
func (c *Client) GivePage(ctx context.Context, number uint64) ([]byte, error) {
	var out mpow.BytesReply
	err := c.call(ctx, quick, "give-page", mpow.PageCall{Page: number}, &out)
	return out.Bytes, err
}

// Take brings the old prover's answer to the new one.
func (c *Client) Take(ctx context.Context, release mpow.Release, gift mpow.Gift) error {
	return c.call(ctx, quick, "take", mpow.TakeCall{Release: release, Gift: gift}, &mpow.EmptyCall{})
}

// TakePage brings the next page; with the last one the new prover holds all.
func (c *Client) TakePage(ctx context.Context, number uint64, page []byte) error {
	return c.call(ctx, slow, "take-page", mpow.TakePageCall{Page: number, Data: page}, &mpow.EmptyCall{})
}

// Word asks the old prover to sign over; it signs nothing more after it.
func (c *Client) Word(ctx context.Context, key []byte, measurement mpow.Hash, generation uint64, head mpow.Head) ([]byte, error) {
	var out mpow.BytesReply
	err := c.call(ctx, quick, "word", mpow.WordCall{Key: key, Measurement: measurement, Generation: generation, Head: head}, &out)
	return out.Bytes, err
}

// Abandon calls a hand-over off, on either side.
func (c *Client) Abandon(ctx context.Context) error {
	return c.call(ctx, slow, "abandon", mpow.EmptyCall{}, &mpow.EmptyCall{})
}
