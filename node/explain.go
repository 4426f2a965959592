package node

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/gateway"
)

// getFetch answers with all that is kept of one fetch.
func (n *Node) getFetch(r *http.Request) (any, error) {
	s := r.PathValue("number")
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return nil, badRequest("fetch %q: want the number in the header %s of an answer, or in the first column of `lode fetches`", s, gateway.HeaderFetch)
	}
	f, ok := n.ex.Trace(id)
	if !ok {
		return nil, notFound("fetch %d: not among the last fetches that this node keeps; `lode fetches` lists them", id)
	}
	return FetchAnswer{Height: n.chain.View().Height(), Fetch: f}, nil
}

// withFile marks the context of a request with its file, and has it remember its
// fetch.
func withFile(ctx context.Context, root cid.Cid) context.Context {
	return bitswap.WithFetch(bitswap.WithFile(ctx, root))
}

// answered says by which fetch the first byte of an answer came, and how long
// what took.
func (n *Node) answered(ctx context.Context, _ cid.Cid) http.Header {
	h := http.Header{}
	id := bitswap.FetchOf(ctx)
	if id == 0 {
		h.Set(gateway.HeaderTiming, `cache;desc="all here"`)
		return h
	}
	h.Set(gateway.HeaderFetch, strconv.FormatUint(id, 10))
	f, ok := n.ex.Trace(id)
	if !ok {
		return h
	}
	line := fmt.Sprintf(`fetch;desc="%d considered, %d asked, %d blocks by %s"`, len(f.Considered), len(f.Asked), f.Blocks, pathName(f.Path))
	for _, s := range f.Steps {
		switch s.What {
		case bitswap.StepAsk, bitswap.StepHedge:
			line += fmt.Sprintf(", ask;dur=%s", millis(s.At))
		case bitswap.StepFallback:
			line += fmt.Sprintf(", fallback;dur=%s", millis(s.At))
		default:
			continue
		}
		break // the first of them alone
	}
	if f.TTFB > 0 {
		line += ", first-block;dur=" + millis(f.TTFB)
	}
	h.Set(gateway.HeaderTiming, line)
	return h
}

// pathName names how blocks came.
func pathName(path string) string {
	if path == "" {
		return "nobody"
	}
	return path
}

// millis prints µs as ms, as Server-Timing counts.
func millis(us int64) string { return strconv.FormatFloat(float64(us)/1000, 'f', 1, 64) }
