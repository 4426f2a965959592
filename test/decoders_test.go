package test

import (
	"go/ast"
	"go/types"
	"path"
	"regexp"
	"slices"
	"testing"
)

// decoderName begins what reads bytes or text that others wrote.
var decoderName = regexp.MustCompile(`^(?i:decode|parse|unmarshal|from)`)

// fuzzed names for each decoder the fuzz target that gives it any bytes; what
// another decoder calls stands under that one's target. Some have other names.
var fuzzed = map[string]string{
	"chain.DecodeTx":               "FuzzDecodeTx",
	"chain.txCache.decode":         "FuzzDecodeTx",
	"chain.decodeJoint":            "FuzzThreshold",
	"chain.readLight":              "FuzzLight",
	"gpos.DecodeMsg":               "FuzzDecodeMsg",
	"market.DecodeMsg":             "FuzzDecodeMsg",
	"market.Root.UnmarshalText":    "FuzzText",
	"market.State.UnmarshalText":   "FuzzText",
	"coin.Parse":                   "FuzzParse",
	"credit.DecodeReceipt":         "FuzzReceipt",
	"bitswap.decodeReceiptFrame":   "FuzzReceiptFrame",
	"mpow.Decode":                  "FuzzMsg",
	"mpow.decode":                  "FuzzReport",
	"mpow.decodeAs":                "FuzzMsg",
	"mpow.DecodeCall":              "FuzzCalls",
	"mpow.LtHash.UnmarshalBinary":  "FuzzNode",
	"mpow.Account.UnmarshalBinary": "FuzzMsg",
	"mpow.Account.UnmarshalText":   "FuzzAccountText",
	"mpow.Hash.UnmarshalText":      "FuzzText",
	"mpow.Kind.UnmarshalText":      "FuzzText",
	"mpow.FMSPC.UnmarshalText":     "FuzzText",

	"quote.Open":                     "FuzzQuote",
	"quote.parseLayout":              "FuzzQuote",
	"quote.openPCKChain":             "FuzzQuote",
	"quote.FromFile":                 "FuzzQuote",
	"quote.fromCertificate":          "FuzzQuote",
	"quote.ParseCollateral":          "FuzzParsers",
	"quote.Collateral.UnmarshalJSON": "FuzzParsers",
	"quote.Status.UnmarshalText":     "FuzzParsers",
	"quote.parseCert":                "FuzzParsers",
	"quote.parseCRL":                 "FuzzParsers",
	"quote.parseKey":                 "FuzzParsers",
	"quote.parseDate":                "FuzzParsers",
	"quote.readFields":               "FuzzParsers",
	"quote.openCert":                 "FuzzCollateral",
	"quote.openRoot":                 "FuzzCollateral",
	"quote.openSigner":               "FuzzCollateral",
	"quote.openCRL":                  "FuzzCollateral",

	"prover.decodeIndex": "FuzzIndex",
	"prover.readState":   "FuzzState",
	"prover.readRecord":  "FuzzState",

	"lode.parseAmount":            "FuzzValues",
	"lode.parseSize":              "FuzzParseSize",
	"lode.parsePercent":           "FuzzValues",
	"lode.parsePath":              "FuzzValues",
	"lode.parseRoot":              "FuzzValues",
	"lode.parseAccount":           "FuzzValues",
	"lode.parseProposal":          "FuzzValues",
	"lode.parseDenial":            "FuzzValues",
	"lode.hexBytes.UnmarshalText": "FuzzValues",
}

// local are functions of a decoder's name that read what only the user wrote.
var local = map[string]string{
	"node.Duration.UnmarshalText": "a setting",
	"prover.parseReleases":        "a flag, or what the build was linked with",
}

// TestEveryDecoderIsFuzzed finds all functions that turn bytes or text into
// something and may fail: each has a fuzz target that exists, or says whose
// bytes it reads.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	known := testsOf(t, moduleDir(t))
	found := map[string]bool{}
	for _, r := range listRooms(t) {
		room := path.Base(r.name())
		if room == "bench" || room == "quotetest" { // reads nobody's bytes; forges for tests
			continue
		}
		for _, f := range parse(t, r) {
			for _, d := range f.file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !takesBytes(fn) {
					continue
				}
				name := room + "." + receiver(fn) + fn.Name.Name
				target, fuzzes := fuzzed[name]
				if !fuzzes && !decoderName.MatchString(fn.Name.Name) {
					continue
				}
				found[name] = true
				if fuzzes && !known[target] {
					t.Errorf("%s is fuzzed by %s, which does not exist", name, target)
				}
				if _, ours := local[name]; !fuzzes && !ours {
					t.Errorf("%s reads bytes and no fuzz target gives it any: write one and name it here", name)
				}
			}
		}
	}
	for name := range fuzzed {
		if !found[name] {
			t.Errorf("%s is no decoder any more: take it out of the list", name)
		}
	}
	if len(found) < 40 {
		t.Errorf("found %d decoders; there are more", len(found))
	}
}

// takesBytes reports whether fn has a parameter of bytes or text, and an error
// among its results.
func takesBytes(fn *ast.FuncDecl) bool {
	bytes := slices.ContainsFunc(fn.Type.Params.List, func(p *ast.Field) bool {
		s := types.ExprString(p.Type)
		return s == "[]byte" || s == "string"
	})
	return bytes && fn.Type.Results != nil && slices.ContainsFunc(fn.Type.Results.List, func(r *ast.Field) bool {
		return types.ExprString(r.Type) == "error"
	})
}

// receiver is the name of fn's receiver with a point, empty for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	x := fn.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	return types.ExprString(x) + "."
}
