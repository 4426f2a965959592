package node_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/node"
)

var updateAPI = flag.Bool("update", false, "write docs/openapi.json anew")

// A route is what docs/openapi.json says of one.
type route struct {
	summary string
	answer  any      // nil: no JSON
	query   []string // names; a * behind one that has to be there
}

// routes are those of `/lode/v1`, which TestOpenAPI compares with the ones that
// api.go serves.
var routes = map[string]route{
	"GET status":                 {"how the node is, and its chain", node.StatusAnswer{}, nil},
	"GET params":                 {"the chain's params in force", node.ParamsAnswer{}, nil},
	"GET genesis":                {"the chain's genesis", node.GenesisAnswer{}, nil},
	"GET tx/{hash}":              {"what became of a transaction", node.TxAnswer{}, nil},
	"POST tx":                    {"send a signed transaction, CBOR in the body, and wait for its block", node.TxAnswer{}, []string{"replace"}},
	"GET accounts/{id}":          {"balance and nonce of an account", node.AccountAnswer{}, nil},
	"GET accounts/{id}/pending":  {"what waits at this node of an account, and its next nonce", node.PendingAnswer{}, nil},
	"GET accounts/{id}/history":  {"events of an account or node", node.HistoryAnswer{}, []string{"kind", "before", "limit"}},
	"GET history":                {"events of the chain as a whole: eras, sets, slashes, votes, enclaves, upgrades", node.HistoryAnswer{}, []string{"kind", "before", "limit"}},
	"GET quote":                  {"what an order would cost now", node.QuoteAnswer{}, []string{"size*", "blocks*", "tip", "root", "account"}},
	"GET orders":                 {"orders, of a payer if named", node.OrdersAnswer{}, []string{"account", "after", "limit"}},
	"GET orders/{cid}":           {"an order: state, money, payout queue", node.OrderAnswer{}, nil},
	"GET orders/{cid}/history":   {"events of a root", node.HistoryAnswer{}, []string{"kind", "before", "limit"}},
	"GET holders/{cid}":          {"who proved a root in the last full slot", node.HoldersAnswer{}, nil},
	"GET nodes":                  {"all registered nodes", node.NodesAnswer{}, []string{"after", "limit"}},
	"GET nodes/{id}":             {"a node with its replicas and pay", node.NodeAnswer{}, nil},
	"GET stake/{id}":             {"stake, limit and guarantees of an account", node.StakeAnswer{}, nil},
	"GET stake/{id}/payouts":     {"rewards of an account by era", node.PayoutsAnswer{}, nil},
	"GET limit":                  {"what stake a workload would carry", node.LimitAnswer{}, []string{"bytes*", "account"}},
	"GET era":                    {"the era and its election", node.EraAnswer{}, nil},
	"GET validators":             {"the validator set", node.ValidatorsAnswer{}, nil},
	"GET peers":                  {"peers by rank, and why", node.PeersAnswer{}, nil},
	"GET peers/{id}":             {"a peer: its rank, and what makes it", node.RankAnswer{}, nil},
	"GET groups/{id}":            {"a group: its owner's nodes and who may join", node.GroupAnswer{}, nil},
	"POST recover":               {"let the node begin another generation, with the files that it has", node.RecoverAnswer{}, nil},
	"GET draws":                  {"the draws of this slot: who is asked for what, and whether it answered", node.DrawsAnswer{}, nil},
	"GET supply":                 {"where all money is", node.SupplyAnswer{}, nil},
	"GET credit":                 {"what all tabs together have done", node.TabSumAnswer{}, nil},
	"GET credit/{id}":            {"on-chain credit of an account: how it came about and what it does", node.CreditAnswer{}, []string{"limit"}},
	"GET tabs":                   {"open tabs of a client, to a server, or of both", node.TabsAnswer{}, []string{"client", "server", "after", "limit"}},
	"GET fetches":                {"the last fetches", node.FetchesAnswer{}, nil},
	"GET fetches/{number}":       {"a fetch with its steps, and why it took so long", node.FetchAnswer{}, nil},
	"GET check/{cid}":            {"ask every holder of a root for the same blocks", node.CheckAnswer{}, []string{"seed", "seconds"}},
	"GET serving":                {"how the exchange serves", node.ServingAnswer{}, nil},
	"GET prover":                 {"this node's enclave, and how the chain stands to it", node.ProverAnswer{}, nil},
	"GET prover/files":           {"what the enclave holds", node.ProverFilesAnswer{}, nil},
	"POST prover/verify":         {"read all of a file in the enclave, or of the random data", node.VerifiedAnswer{}, []string{"cid"}},
	"POST prover/srd":            {"how many units of random data to keep until the node ends: {\"units\": N}", node.SRDAnswer{}, nil},
	"POST prover/upgrade":        {"let the enclave hand over to another one in the next slot: {\"socket\": path, \"release\": …}", node.Upgrade{}, nil},
	"POST prover/abandon":        {"call a hand-over off", node.Upgrade{}, nil},
	"GET receipts":               {"receipts kept and signed, what peers owe, prices and budget", node.ReceiptsAnswer{}, nil},
	"POST receipts/claim":        {"claim the receipts kept of a client now, or all: {\"client\": id}", node.ClaimsAnswer{}, nil},
	"GET collateral":             {"Intel's collateral that the chain has", node.CollateralAnswer{}, nil},
	"GET proof/accounts/{id}":    {"an account with a proof", node.ProofAnswer{}, nil},
	"GET proof/nodes/{id}":       {"a node's record with a proof", node.ProofAnswer{}, nil},
	"GET proof/orders/{cid}":     {"an order with a proof", node.ProofAnswer{}, nil},
	"GET proof/holders/{cid}":    {"holders of a root with proofs", node.HolderProofsAnswer{}, nil},
	"GET proof/credit/{id}":      {"on-chain credit of an account with a proof", node.ProofAnswer{}, nil},
	"GET proof/tabs/{id}":        {"a client's tab for a server with a proof", node.ProofAnswer{}, []string{"server*"}},
	"GET light/{number}":         {"header, commit and set of a height", node.LightAnswer{}, nil},
	"GET gov/proposals":          {"proposals under vote and decided ones", node.ProposalsAnswer{}, nil},
	"GET gov/proposals/{number}": {"a proposal and its votes", node.ProposalAnswer{}, nil},
	"GET gov/params":             {"params that a proposal can name", node.NamedParamsAnswer{}, nil},
	"GET gov/protocol":           {"protocol version and planned upgrade", node.ProtocolAnswer{}, nil},
	"GET gov/enclaves":           {"which enclaves may register", node.EnclavesAnswer{}, nil},
	"POST debug/fault":           {"switch a fault, on devnets: {\"fault\": name, \"on\": bool}", map[string]any{}, nil},
	"GET metrics":                {"metrics in the text format of Prometheus", nil, nil},
}

// TestOpenAPI holds docs/openapi.json to the routes that api.go serves and to the
// types that they answer with: it cannot drift from either.
func TestOpenAPI(t *testing.T) {
	src, err := os.ReadFile("api.go")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`\tget\("([^"]+)"`).FindAllSubmatch(src, -1) {
		served["GET "+string(m[1])] = true
	}
	for _, m := range regexp.MustCompile(`mux\.Handle(?:Func)?\("(GET|POST) /lode/v1/([^"]+)",`).FindAllSubmatch(src, -1) {
		served[string(m[1])+" "+string(m[2])] = true
	}
	for path := range served {
		if _, ok := routes[path]; !ok {
			t.Errorf("%s is served, and not in routes of openapi_test.go", path)
		}
	}
	for path := range routes {
		if !served[path] {
			t.Errorf("%s is described, and not served", path)
		}
	}
	all, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, f := range all {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:(?:Query\(\)|\bq)\.Get\(|query\w*\(r, |map\[string\]\*uint64\{|&\w+, )"(\w+)"`).FindAllSubmatch(b, -1) {
			asked[string(m[1])] = true
		}
	}
	for path, r := range routes {
		for _, q := range r.query {
			if !asked[strings.TrimSuffix(q, "*")] {
				t.Errorf("%s: nobody reads the query %q", path, q)
			}
		}
	}
	named := map[string]bool{}
	for _, r := range routes {
		for _, q := range r.query {
			named[strings.TrimSuffix(q, "*")] = true
		}
	}
	for q := range asked {
		if !named[q] {
			t.Errorf("the query %q is read, and no route in openapi_test.go has it", q)
		}
	}
	got, err := json.MarshalIndent(openAPI(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "../docs/openapi.json"
	if *updateAPI {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is not what the API answers (%v): go test ./node -run TestOpenAPI -update, and read the diff", err)
	}
}

type object = map[string]any

// openAPI is the document, OpenAPI 3.0.
func openAPI() object {
	s := schemas{}
	failed := object{"description": "why not, in a sentence, with a code of the chain or 0", "content": jsonOf(s.of(reflect.TypeFor[node.ErrorAnswer]()))}
	paths := object{}
	for path, r := range routes {
		method, path, _ := strings.Cut(path, " ")
		params := []object{}
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
			params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		for _, q := range r.query {
			name, required := strings.CutSuffix(q, "*")
			params = append(params, object{"name": name, "in": "query", "required": required, "schema": object{"type": "string"}})
		}
		ok := object{"description": "done"}
		if r.answer != nil {
			ok["content"] = jsonOf(s.of(reflect.TypeOf(r.answer)))
		}
		full := "/lode/v1/" + path
		if paths[full] == nil {
			paths[full] = object{}
		}
		paths[full].(object)[strings.ToLower(method)] = object{
			"summary": r.summary, "parameters": params, "responses": object{"200": ok, "default": failed},
		}
	}
	return object{
		"openapi": "3.0.3",
		"info": object{"title": "Lode node", "version": "1", "description": "Answers carry the height of the state that they were read from. Sizes are bytes, amounts grains, accounts peer IDs. " +
			"Over the socket of a home nobody is asked for a token; on TCP every call carries that of api.token as a bearer."},
		"paths":      paths,
		"components": object{"schemas": s},
	}
}

func jsonOf(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

// schemas are those of named structs.
type schemas map[string]any

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// of returns the schema of what encoding/json makes of t.
func (s schemas) of(t reflect.Type) object {
	if t.Kind() == reflect.Pointer {
		return s.of(t.Elem())
	}
	switch {
	case t == reflect.TypeFor[cid.Cid]():
		return object{"type": "object", "properties": object{"/": object{"type": "string"}}}
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Implements(textMarshaler) || reflect.PointerTo(t).Implements(textMarshaler):
		return object{"type": "string"}
	case t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler):
		return object{"description": "as its type spells it"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return object{"type": "string", "format": "byte"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.Struct:
	default:
		return object{"type": "integer"}
	}
	name := strings.ReplaceAll(t.String(), ".", "_")
	if _, done := s[name]; !done {
		s[name] = nil // a type may hold itself
		s[name] = object{"type": "object", "properties": s.properties(t)}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// properties are the fields of t with those that it embeds.
func (s schemas) properties(t reflect.Type) object {
	out := object{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			for k, v := range s.properties(f.Type) {
				out[k] = v
			}
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		schema := s.of(f.Type)
		if slices.Contains(strings.Split(opts, ","), "string") {
			schema = object{"type": "string"}
		}
		out[tag] = schema
	}
	return out
}
