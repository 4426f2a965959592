package main

import (
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
)

func (c *cli) quoteCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "quote", Short: "check what an SGX enclave says of itself"})
	cmd.AddCommand(c.quoteVerifyCmd())
	return cmd
}

// A quoteVerdict is what `lode quote verify --json` prints of a quote that holds.
type quoteVerdict struct {
	Verified    bool     `json:"verified"`
	Form        string   `json:"form"` // of the file: quote, evidence or certificate
	At          string   `json:"at"`
	MRENCLAVE   string   `json:"mrenclave"`
	MRSIGNER    string   `json:"mrsigner"`
	Product     uint16   `json:"product"`
	SVN         uint16   `json:"svn"`
	Debug       bool     `json:"debug"`
	Flags       string   `json:"flags"`
	ReportData  string   `json:"report_data"`
	BindsKey    *bool    `json:"binds_key,omitempty"` // of the certificate that holds the quote
	Status      string   `json:"status"`              // of platform and quoting enclave together
	Platform    string   `json:"platform_status"`
	QE          string   `json:"qe_status"`
	Advisories  []string `json:"advisories"`
	Evaluation  uint32   `json:"evaluation"`
	SGXType     string   `json:"sgx_type"`
	FMSPC       string   `json:"fmspc"`
	CA          string   `json:"ca"`
	PPIDHash    string   `json:"cpu,omitempty"` // what the chain named by --chain would count it under
	ValidFrom   string   `json:"valid_from"`
	ValidUntil  string   `json:"valid_until"`
	Revocation  bool     `json:"revocation_checked"`
	PolicyTakes bool     `json:"default_policy_takes"`
	PolicyWhy   string   `json:"default_policy_refusal,omitempty"`
}

func (c *cli) quoteVerifyCmd() *cobra.Command {
	var collateral, at, root, chainID string
	var withoutCRLs bool
	cmd := &cobra.Command{
		Use:   "verify FILE --collateral FILE",
		Short: "check an SGX DCAP quote, or EGo's certificate with one in it, against Intel's collateral",
		Long: `Checks a quote of version 3 as the chain does when an enclave registers: its certificates up to Intel's root, both revocation
lists, the identity of the quoting enclave, the level of the platform, all at one time. It asks no network.

FILE is a bare quote, one behind Open Enclave's header, or an X.509 certificate (PEM or DER) that EGo made. The collateral is
JSON with the members of Intel's sgx_ql_qve_collateral_t, as tools around its library write it; 'lode collateral show --json' has
what the chain keeps. Exit code 0: the quote holds. 1: it does not, and the reason is on stderr. Whether the platform is good
enough is for the chain's policy: what the default one says is printed, and changes no exit code.`,
		Args: nargs(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if collateral == "" {
				return usage("quote verify: --collateral FILE is missing: what Intel says of the platform")
			}
			when := time.Now()
			if at != "" {
				var err error
				if when, err = time.Parse(time.RFC3339, at); err != nil {
					return usage("--at %q: want a time like 2025-06-20T00:00:00Z", at)
				}
			}
			trust := quote.Trust{Root: quote.IntelRoot(), Time: when.Unix(), WithoutCRLs: withoutCRLs}
			if root != "" {
				var err error
				if trust.Root, err = readCertificate(root); err != nil {
					return err
				}
			}
			v, err := verifyQuote(args[0], collateral, chainID, trust)
			if err != nil {
				return err
			}
			return c.show(v, v.print)
		},
	}
	f := cmd.Flags()
	f.StringVar(&collateral, "collateral", "", "file of Intel's collateral, JSON")
	f.StringVar(&at, "at", "", "time at which all must be valid, RFC 3339 (default now)")
	f.StringVar(&root, "root", "", "certificate to trust in place of Intel's SGX Root CA, PEM or DER")
	f.StringVar(&chainID, "chain", "", "print the name that this chain gives the CPU")
	f.BoolVar(&withoutCRLs, "without-crls", false, "take collateral without revocation lists; no chain does")
	return cmd
}

// readCertificate reads the first certificate of a file, DER.
func readCertificate(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if p, _ := pem.Decode(b); p != nil {
		return p.Bytes, nil
	}
	return b, nil
}

// verifyQuote reads both files and checks one by the other.
func verifyQuote(path, collateral, chainID string, trust quote.Trust) (v quoteVerdict, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	file, err := quote.FromFile(b)
	if err != nil {
		return v, fmt.Errorf("quote %s: %w", path, err)
	}
	if b, err = os.ReadFile(collateral); err != nil {
		return v, err
	}
	c, err := quote.ParseCollateral(b)
	if err != nil {
		return v, fmt.Errorf("collateral %s: %w", collateral, err)
	}
	q, err := quote.Open(file.Quote, trust)
	if err != nil {
		return v, fmt.Errorf("quote %s: %w", path, err)
	}
	x, err := q.Verify(c)
	if err != nil {
		return v, fmt.Errorf("quote %s: %w", path, err)
	}
	v = quoteVerdict{
		Verified: true, Form: file.Form, At: quote.FormatDate(trust.Time), MRENCLAVE: x.Report.MRENCLAVE.String(), MRSIGNER: x.Report.MRSIGNER.String(),
		Product: x.Report.Product, SVN: x.Report.SVN, Debug: x.Report.Debug(), Flags: fmt.Sprintf("%#x", x.Report.Flags), ReportData: hex.EncodeToString(x.Report.Data[:]),
		Status: x.Status.String(), Platform: x.Platform.String(), QE: x.QE.String(), Advisories: x.Advisories, Evaluation: x.Evaluation,
		SGXType: x.SGXType.String(), FMSPC: x.FMSPC.String(), CA: q.CA, ValidFrom: quote.FormatDate(x.ValidFrom), ValidUntil: quote.FormatDate(x.ValidUntil),
		Revocation: len(c.RootCRL) > 0,
	}
	if v.Advisories == nil {
		v.Advisories = []string{}
	}
	if chainID != "" {
		cpu := quote.CPU(chainID, x.PPID)
		v.PPIDHash = hex.EncodeToString(cpu[:])
	}
	if file.Form == "certificate" {
		binds := file.KeyHash == [32]byte(x.Report.Data[:32])
		v.BindsKey = &binds
	}
	err = mpow.DefaultPolicy().Judge(mpow.Verdict{
		Debug: v.Debug, Status: v.Platform, QEStatus: v.QE, Advisories: v.Advisories, Evaluation: v.Evaluation, SGXType: v.SGXType, FMSPC: x.FMSPC,
	})
	if v.PolicyTakes = err == nil; err != nil {
		v.PolicyWhy = err.Error()
	}
	return v, nil
}

func (v quoteVerdict) print(w io.Writer) {
	policy, binds, revocation := "takes it", "", "checked"
	if !v.PolicyTakes {
		policy = "refuses it: " + v.PolicyWhy
	}
	if v.BindsKey != nil {
		binds = map[bool]string{true: "yes: the report data begins with its hash", false: "NO: the report data says something else"}[*v.BindsKey]
	}
	if !v.Revocation {
		revocation = "NOT CHECKED"
	}
	debug := ""
	if v.Debug {
		debug = "YES: its host reads and writes its memory"
	}
	fmt.Fprintf(w, "verified at %s\n", v.At)
	fields(w, "enclave (MRENCLAVE)", v.MRENCLAVE, "signer (MRSIGNER)", v.MRSIGNER, "product, SVN", fmt.Sprintf("%d, %d", v.Product, v.SVN), "debug", debug,
		"report data", v.ReportData, "binds the certificate's key", binds, "TCB status", v.Status, "of platform", v.Platform, "of quoting enclave", v.QE,
		"advisories", strings.Join(v.Advisories, " "), "evaluation", v.Evaluation, "SGX type", v.SGXType, "FMSPC", v.FMSPC, "certified by", v.CA+" CA",
		"CPU on the chain", v.PPIDHash, "revocation", revocation, "valid", v.ValidFrom+" to "+v.ValidUntil, "default policy", policy)
}
