package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ipfs/boxo/exchange"
	boxo "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// reasoned is an exchange whose "not found" is a 504 with a sentence. Boxo takes an IPLD not-found for a path that
// does not exist and answers 404, which caches keep; that nobody gives a block *now* says nothing about the path.
type reasoned struct{ exchange.Interface }

var _ exchange.SessionExchange = reasoned{}

// GetBlock asks the exchange for one block.
func (x reasoned) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return reasonedFetcher{x.Interface}.GetBlock(ctx, c)
}

// NewSession returns a session of the exchange where it has sessions, else the exchange itself.
func (x reasoned) NewSession(ctx context.Context) exchange.Fetcher {
	if s, ok := x.Interface.(exchange.SessionExchange); ok {
		return reasonedFetcher{s.NewSession(ctx)}
	}
	return reasonedFetcher{x.Interface}
}

type reasonedFetcher struct{ exchange.Fetcher }

// GetBlock asks for one block; that it is not to be had is a 504 whatever the exchange calls it.
func (f reasonedFetcher) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := f.Fetcher.GetBlock(ctx, c)
	if err != nil && ipld.IsNotFound(err) {
		// The chain of errors is cut here on purpose: see reasoned.
		return nil, boxo.NewErrorStatusCode(fmt.Errorf("nobody gives block %v: %s", c, err.Error()), http.StatusGatewayTimeout)
	}
	return b, err
}

// backend is boxo's, but for one thing: a CAR whose first block is not to be had. Boxo has sent a 200 that caches keep for
// ever before it asks for that block; here it is fetched first.
type backend struct{ *boxo.BlocksBackend }

// GetCAR streams the DAG at p. A path that leads nowhere is boxo's to prove; only blocks that nobody gives end it here.
func (b backend) GetCAR(ctx context.Context, p path.ImmutablePath, params boxo.CarParams) (boxo.ContentPathMetadata, io.ReadCloser, error) {
	md, f, err := b.GetBlock(ctx, p)
	var status *boxo.ErrorStatusCode
	if errors.As(err, &status) {
		return md, nil, err
	}
	if err == nil {
		f.Close()
	}
	return b.BlocksBackend.GetCAR(ctx, p, params)
}
