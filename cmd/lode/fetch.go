package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow/quote"
	"github.com/lode-node/lode/node"
)

// Where Intel publishes its collateral (Intel SGX provisioning certification
// service, API v4).
const (
	intelPCS     = "https://api.trustedservices.intel.com"
	intelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
)

// An intelService is where collateral comes from. It is not trusted: what it says
// is believed for Intel's signature alone.
type intelService struct {
	base, rootCRL string
	hc            *http.Client
}

func (c *cli) collateralFetchCmd() *cobra.Command {
	s := intelService{hc: http.DefaultClient}
	var fmspc, ca, out string
	cmd := &cobra.Command{
		Use:   "fetch --fmspc FMSPC --out FILE",
		Short: "get the newest collateral of a family of platforms from Intel",
		Long: `Asks Intel's provisioning certification service, or one that speaks like it, for what quotes of one family of platforms are
checked by, checks it, and writes it to a file that 'lode collateral submit' and 'lode quote verify' read. 'lode quote verify' of
an older quote prints its FMSPC and CA. Nothing of the platform is sent but these two.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(fmspc) != 12 || strings.Trim(strings.ToLower(fmspc), "0123456789abcdef") != "" {
				return usage("--fmspc %q: want 12 hexadecimal digits", fmspc)
			}
			if ca != "processor" && ca != "platform" {
				return usage("--ca %q: want processor or platform", ca)
			}
			if out == "" {
				return usage("collateral fetch: --out FILE is missing")
			}
			ctx, cancel := c.within(cmd.Context(), time.Minute)
			defer cancel()
			x, err := s.fetch(ctx, strings.ToUpper(fmspc), ca)
			if err != nil {
				return err
			}
			b, err := json.MarshalIndent(x, "", "  ")
			if err != nil {
				return err
			}
			if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil {
				return err
			}
			items, err := x.Items(quote.Trust{Root: quote.IntelRoot(), Time: time.Now().Unix()})
			if err != nil {
				return fmt.Errorf("%s holds what %s said, but Intel did not: %w", out, s.base, err)
			}
			return c.show(fetchedJSON(out, items), func(w io.Writer) {
				fmt.Fprintf(w, "collateral of %s is in %s\n", fmspc, out)
				for _, i := range items {
					fields(w, i.Name, "until "+quote.FormatDate(i.Until))
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&fmspc, "fmspc", "", "family of platforms, 12 hexadecimal digits")
	f.StringVar(&ca, "ca", "processor", "which of Intel's CAs certified the platform: processor or platform")
	f.StringVar(&out, "out", "", "file to write")
	f.StringVar(&s.base, "from", intelPCS, "service to ask")
	f.StringVar(&s.rootCRL, "root-crl", intelRootCRL, "where the root's revocation list is")
	return cmd
}

// carry is how a node fetches collateral by itself.
func carry(set node.CollateralConfig) func(context.Context, string, string) (chain.Msg, error) {
	s := intelService{base: intelPCS, rootCRL: intelRootCRL, hc: &http.Client{Timeout: time.Minute}}
	if set.From != "" {
		s.base = set.From
	}
	return func(ctx context.Context, fmspc, ca string) (chain.Msg, error) {
		x, err := s.fetch(ctx, strings.ToUpper(fmspc), ca)
		if err != nil {
			return chain.Msg{}, err
		}
		return chain.Msg{Collateral: &x}, nil
	}
}

// A fetchedItem is a line of what `lode collateral fetch --json` prints.
type fetchedItem struct {
	Name  string `json:"name"`
	Until int64  `json:"until"` // Unix seconds
}

// fetchedJSON is what --json prints.
func fetchedJSON(out string, items []quote.Item) map[string]any {
	list := make([]fetchedItem, len(items))
	for i, x := range items {
		list[i] = fetchedItem{x.Name, x.Until}
	}
	return map[string]any{"file": out, "collateral": list}
}

// fetch asks for all four pieces.
func (s intelService) fetch(ctx context.Context, fmspc, ca string) (c quote.Collateral, err error) {
	const api = "/sgx/certification/v4/"
	if c.TCBInfo, err = s.statement(ctx, s.base+api+"tcb?fmspc="+fmspc, "tcbInfo", "TCB-Info-Issuer-Chain"); err != nil {
		return c, err
	}
	if c.QEIdentity, err = s.statement(ctx, s.base+api+"qe/identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"); err != nil {
		return c, err
	}
	body, issuer, err := s.get(ctx, s.base+api+"pckcrl?ca="+ca+"&encoding=der", "SGX-PCK-CRL-Issuer-Chain")
	if err != nil {
		return c, err
	}
	c.PCKCRL, c.PCKCA = body, issuer
	c.RootCRL, _, err = s.get(ctx, s.rootCRL, "")
	return c, err
}

// statement asks for a signed JSON value and cuts it out byte by byte, as it was
// signed.
func (s intelService) statement(ctx context.Context, u, name, header string) (x quote.Signed, err error) {
	body, signer, err := s.get(ctx, u, header)
	if err != nil {
		return x, err
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(body, &parts); err != nil {
		return x, fmt.Errorf("%s: %w", u, err)
	}
	var sig hexBytes
	if err := json.Unmarshal(parts["signature"], &sig); err != nil || len(parts[name]) == 0 {
		return x, fmt.Errorf("%s: the answer has no %s with a signature", u, name)
	}
	return quote.Signed{Body: parts[name], Sig: sig, Signer: signer}, nil
}

// get asks u and returns the body and, of the chain of certificates in a header,
// the first.
func (s intelService) get(ctx context.Context, u, header string) (body, issuer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, nil, usage("%s: %v", u, err)
	}
	resp, err := s.hc.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, quote.MaxItem+1)); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", u, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %s", u, resp.Status)
	}
	if len(body) > quote.MaxItem {
		return nil, nil, fmt.Errorf("%s: more than %d bytes", u, quote.MaxItem)
	}
	if header == "" {
		return body, nil, nil
	}
	chain, err := url.QueryUnescape(resp.Header.Get(header))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: header %s: %w", u, header, err)
	}
	if issuer, err = firstCertificate([]byte(chain)); err != nil {
		return nil, nil, fmt.Errorf("%s: header %s: %w", u, header, err)
	}
	return body, issuer, nil
}

// hexBytes is bytes that JSON has in hexadecimal.
type hexBytes []byte

// UnmarshalText reads hexadecimal digits.
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// firstCertificate returns the first certificate of a chain in PEM, DER.
func firstCertificate(chain []byte) ([]byte, error) {
	p, _ := pem.Decode(chain)
	if p == nil || p.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in it")
	}
	return p.Bytes, nil
}
