package node

import (
	"encoding/hex"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// What `/lode/v1` answers, in JSON. Every answer carries the height of the state
// that it was read from. Sizes are bytes, amounts grains.
type (
	// ErrorAnswer comes with every status above 299.
	ErrorAnswer struct {
		Error string `json:"error"`
		Code  uint32 `json:"code"` // a code of chain.Error, or 0
	}

	// StatusAnswer is GET status.
	StatusAnswer struct {
		Height     int64      `json:"height"`
		AppHash    string     `json:"app_hash"` // hexadecimal
		ChainID    string     `json:"chain_id"`
		Class      string     `json:"class"`
		Slot       mpow.Slot  `json:"slot"`
		Era        gpos.Era   `json:"era"`
		ID         peer.ID    `json:"id"`        // account and peer ID
		Role       string     `json:"role"`      // storage or edge
		Kind       string     `json:"kind"`      // sgx, simulated; empty on an edge
		Simulated  bool       `json:"simulated"` // the chain counts proofs without hardware protection
		Version    string     `json:"version"`
		CatchingUp bool       `json:"catching_up"`
		Validator  bool       `json:"validator"`          // its key votes on the next block
		Standing   string     `json:"standing,omitempty"` // why it does or does not, by its stake; empty on an edge
		ChainPeers int        `json:"chain_peers"`        // of the consensus network
		Peers      int        `json:"peers"`              // of libp2p
		Stopped    string     `json:"stopped,omitempty"`  // why no blocks come; empty: they do
		Addrs      []string   `json:"addrs"`              // multiaddrs with the peer ID
		Gateway    string     `json:"gateway,omitempty"`  // host:port
		Faults     []string   `json:"faults"`             // switched on for tests
		Disk       *DiskState `json:"disk,omitempty"`     // of the home; nil without one

		Prover *mpow.ProverInfo `json:"prover,omitempty"`      // nil on an edge
		Report *LastReport      `json:"last_report,omitempty"` // nil on an edge
		Work   []Work           `json:"work"`                  // files being fetched and sealed
		Failed []Failure        `json:"failed"`                // what failed last, by file
	}

	// A Work is a file that is being fetched and sealed.
	Work struct {
		Root   cid.Cid   `json:"root"`
		Since  time.Time `json:"since"`
		Blocks int64     `json:"blocks"` // sealed since then
		Bytes  int64     `json:"bytes"`
	}

	// A Failure is why a deed for a file failed; it is decided again.
	Failure struct {
		Root  cid.Cid `json:"root"`
		Error string  `json:"error"`
	}

	// A LastReport is the last one that this node tried.
	LastReport struct {
		Slot  mpow.Slot `json:"slot"`
		Error string    `json:"error,omitempty"` // why prover or chain refused it
	}

	// ParamsAnswer is GET params.
	ParamsAnswer struct {
		Height int64  `json:"height"`
		Params Params `json:"params"`
	}
	// Params are those of the chain and its name.
	Params struct {
		ChainID string `json:"chain_id"`
		Class   string `json:"class"`
		chain.Params
	}

	// GenesisAnswer is GET genesis.
	GenesisAnswer struct {
		Height  int64         `json:"height"`
		Genesis chain.Genesis `json:"genesis"`
	}

	// TxAnswer is POST tx and GET tx/{hash}; Height is that of the block.
	TxAnswer struct {
		Height int64       `json:"height"`
		Hash   string      `json:"hash"` // hexadecimal
		Code   uint32      `json:"code"`
		Log    string      `json:"log"`
		Fee    coin.Amount `json:"fee"`
	}

	// AccountAnswer is GET accounts/{id}. An account that never was has nothing.
	AccountAnswer struct {
		Height int64       `json:"height"`
		ID     peer.ID     `json:"id"`
		Nonce  uint64      `json:"nonce"` // last used
		Free   coin.Amount `json:"free"`
	}

	// PendingAnswer is GET accounts/{id}/pending: what waits at this node for a block,
	// by nonce. Other nodes may have more, or less.
	PendingAnswer struct {
		Height  int64       `json:"height"`
		ID      peer.ID     `json:"id"`
		Nonce   uint64      `json:"nonce"` // last used
		Next    uint64      `json:"next"`  // the first that was neither used nor waits
		Free    coin.Amount `json:"free"`
		Pending []PendingTx `json:"pending"`
	}

	// PendingTx is one that waits.
	PendingTx struct {
		Hash  string      `json:"hash"` // hexadecimal
		Nonce uint64      `json:"nonce"`
		Fee   coin.Amount `json:"fee"` // what it costs, with the bid
		Bid   coin.Amount `json:"bid"`
		Bytes int         `json:"bytes"`
	}

	// QuoteAnswer is GET quote?size=&blocks=[&root=][&tip=][&account=]: what an
	// order would cost and do now. Without a root it is one for a new file.
	QuoteAnswer struct {
		Height   int64 `json:"height"`
		Duration int64 `json:"blocks"` // length of the order
		chain.Offer
	}

	// HistoryAnswer is GET history, accounts/{id}/history and orders/{cid}/history,
	// all with [?kind=a,b][&before=HEIGHT][&limit=]: the newest first, as far back as
	// this node keeps blocks.
	HistoryAnswer struct {
		Height int64        `json:"height"`
		Events []chain.Past `json:"events"`
	}

	// OrdersAnswer is GET orders[?account=][&after=][&limit=], by root; OrderAnswer
	// is GET orders/{cid}.
	OrdersAnswer struct {
		Height int64   `json:"height"`
		Orders []Order `json:"orders"`
		Next   string  `json:"next,omitempty"` // after= of the next page
	}
	OrderAnswer struct {
		Height int64 `json:"height"`
		Order  Order `json:"order"`
	}
	// An Order is a file record as people read it.
	Order struct {
		Root     cid.Cid      `json:"root"`
		State    market.State `json:"state"`
		Why      string       `json:"why"`  // what it waits for, or what ends it, in a sentence
		Size     uint64       `json:"size"` // proved; while pending the largest that a payer named
		Opened   int64        `json:"opened"`
		Expiry   int64        `json:"expiry"`              // 0 while pending
		RefundAt int64        `json:"refund_at,omitempty"` // while pending: when it is refunded if nobody proves it
		Pool     coin.Amount  `json:"pool"`
		Prepaid  coin.Amount  `json:"prepaid"`
		Payers   []peer.ID    `json:"payers"`
		Sources  []string     `json:"sources"`
		Payments []Payment    `json:"payments"`
		Replicas []Replica    `json:"replicas"` // in order of the payout queue
	}
	// A Payment waits for the first proof.
	Payment struct {
		Payer  peer.ID     `json:"payer"`
		Size   uint64      `json:"size"`
		Amount coin.Amount `json:"amount"`
		Tip    coin.Amount `json:"tip"`
		Blocks int64       `json:"blocks"`
	}
	// A Replica is a proven copy in the payout queue.
	Replica struct {
		Node    peer.ID     `json:"node"`
		Owner   peer.ID     `json:"owner"`
		Kind    string      `json:"kind"` // sgx, simulated
		Since   mpow.Slot   `json:"since"`
		Seated  bool        `json:"seated"`  // holds a paid place
		Last    mpow.Slot   `json:"last"`    // slot of its node's last report
		Accrued coin.Amount `json:"accrued"` // booked and not collected, vested or not
		Bonus   uint64      `json:"bonus"`   // bytes of storage power above the file's size (spec §5.7)
	}

	// HoldersAnswer is GET holders/{cid}: who owes the content (spec §6.1).
	HoldersAnswer struct {
		Height  int64    `json:"height"`
		Root    cid.Cid  `json:"root"`
		Holders []Holder `json:"holders"`
	}
	// A Holder proved the file in the last full slot.
	Holder struct {
		Node   peer.ID     `json:"node"`
		Owner  peer.ID     `json:"owner"`
		Kind   string      `json:"kind"` // sgx, simulated
		Last   mpow.Slot   `json:"last"`
		Credit coin.Amount `json:"credit"`
		Addrs  []string    `json:"addrs"` // multiaddrs without the peer ID
	}

	// NodesAnswer is GET nodes[?after=][&limit=], by account; NodeAnswer is GET
	// nodes/{id}.
	NodesAnswer struct {
		Height int64       `json:"height"`
		Nodes  []NodeEntry `json:"nodes"`
		Next   string      `json:"next,omitempty"` // after= of the next page
	}
	NodeAnswer struct {
		Height   int64           `json:"height"`
		Node     NodeEntry       `json:"node"`
		Replicas []chain.Replica `json:"replicas"`
		Pay      chain.Pay       `json:"pay"` // earned and not collected
	}
	// DrawsAnswer is GET draws: those of the last slot and of this one (spec §3.11).
	DrawsAnswer struct {
		Height int64        `json:"height"`
		Slot   mpow.Slot    `json:"slot"`
		Draws  []chain.Draw `json:"draws"`
	}
	// GroupAnswer is GET groups/{id}: what stands under an owner (spec §3.8).
	GroupAnswer struct {
		Height int64       `json:"height"`
		Group  chain.Group `json:"group"`
		// Workload is what the owner's nodes proved in the last full slot, in bytes.
		Workload uint64 `json:"workload"`
	}
	// RecoverAnswer is POST recover: what this node has been asked to begin.
	RecoverAnswer struct {
		Height      int64  `json:"height"`
		Generation  uint64 `json:"generation"`
		PunishSlots uint64 `json:"punish_slots"` // slots without workload from then
	}
	// PeersAnswer is GET peers: the best first, with what makes their rank.
	PeersAnswer struct {
		Height int64  `json:"height"`
		Peers  []Peer `json:"peers"`
	}
	// A Peer is what the exchange thinks of a peer, and what the chain says it is.
	Peer struct {
		bitswap.PeerStat
		Kind string `json:"kind,omitempty"` // sgx, simulated; empty: proves nothing
	}

	// RankAnswer is GET peers/{id}: what the exchange thinks of one peer, and every
	// step that leads to it.
	RankAnswer struct {
		Height int64         `json:"height"`
		Rank   bitswap.Rank  `json:"rank"`
		Kind   string        `json:"kind,omitempty"` // sgx, simulated; empty: proves nothing
		Chain  []credit.Part `json:"chain"`          // sum to the chance that the chain gives it, ppm
	}

	// CheckAnswer is GET check/{cid}: every holder was asked for the same blocks.
	CheckAnswer struct {
		Height  int64     `json:"height"`
		Root    cid.Cid   `json:"root"`
		Seed    uint64    `json:"seed"` // of the path below the root; ?seed= asks for the same again
		Holders []Checked `json:"holders"`
		Good    int       `json:"good"` // holders that served all they were asked for
	}
	// A Checked is a holder that was asked for the root, and for one block below
	// each block that has any, drawn by the seed.
	Checked struct {
		Node     peer.ID         `json:"node"`
		Owner    peer.ID         `json:"owner"`
		Kind     string          `json:"kind"` // sgx, simulated
		Last     mpow.Slot       `json:"last"` // slot of its last proof
		Verdict  bitswap.Verdict `json:"verdict"`
		Blocks   int             `json:"blocks"` // served, each checked by its hash
		Bytes    uint64          `json:"bytes"`
		Dial     int64           `json:"dial_us"`  // to connect; 0 = connected before
		First    int64           `json:"first_us"` // from asking for the root to having it
		Took     int64           `json:"took_us"`  // in all
		Path     []cid.Cid       `json:"path"`     // what was asked for
		Error    string          `json:"error,omitempty"`
		Expected uint64          `json:"expected_us"` // for a block of 256 KiB, by our own books
	}

	// FetchesAnswer is GET fetches: the last ones, the newest last.
	FetchesAnswer struct {
		Height  int64           `json:"height"`
		Fetches []bitswap.Fetch `json:"fetches"`
	}

	// ServingAnswer is GET serving: what the exchange does for others.
	ServingAnswer struct {
		Height int64 `json:"height"`
		bitswap.ServeStat
	}

	// FetchAnswer is GET fetches/{number}: one of them with its steps.
	FetchAnswer struct {
		Height int64         `json:"height"`
		Fetch  bitswap.Fetch `json:"fetch"`
	}

	// SupplyAnswer is GET supply.
	SupplyAnswer struct {
		Height int64        `json:"height"`
		Supply chain.Supply `json:"supply"`
	}

	// A NodeEntry is what the chain knows of a prover.
	NodeEntry struct {
		ID            peer.ID   `json:"id"`
		Owner         peer.ID   `json:"owner"`
		Kind          string    `json:"kind"` // sgx, simulated
		Key           string    `json:"key"`  // hexadecimal, of the enclave
		AttestedUntil mpow.Slot `json:"attested_until"`
		Seq           uint64    `json:"seq"`
		Last          mpow.Slot `json:"last"` // slot of the last report
		Reports       uint64    `json:"reports"`
		Misses        uint64    `json:"misses"`
		Faults        uint64    `json:"faults"` // draws never answered
		PunishedUntil mpow.Slot `json:"punished_until"`
		Generation    uint64    `json:"generation"`
		Lapsed        bool      `json:"lapsed,omitempty"` // nobody renewed it, and it is being taken out
		// Recovering is what a recovery has yet to come to; absent: none is under way.
		Recovering *mpow.Recovering `json:"recovering,omitempty"`
		SRDBytes   uint64           `json:"srd_bytes"`
		FileBytes  uint64           `json:"file_bytes"`
		Power      uint64           `json:"power"`
		Workload   uint64           `json:"workload"` // of its last report; 0 when that was not in the last full slot
		Addrs      []string         `json:"addrs"`
	}
)

// txAnswer shows a result for people.
func txAnswer(r chain.TxResult) TxAnswer {
	return TxAnswer{Height: r.Height, Hash: hex.EncodeToString(r.Hash[:]), Code: r.Code, Log: r.Log, Fee: r.Fee}
}
