package main

import (
	"context"

	"github.com/lode-node/lode/node"
)

// What a node answers under /lode/v1. With --json the answer is printed as it came.
type (
	ctxt = context.Context

	paramsAnswer     = node.ParamsAnswer
	accountAnswer    = node.AccountAnswer
	pendingAnswer    = node.PendingAnswer
	txAnswer         = node.TxAnswer
	statusAnswer     = node.StatusAnswer
	quoteAnswer      = node.QuoteAnswer
	orderAnswer      = node.OrderAnswer
	ordersAnswer     = node.OrdersAnswer
	holdersAnswer    = node.HoldersAnswer
	nodesAnswer      = node.NodesAnswer
	nodeAnswer       = node.NodeAnswer
	stakeAnswer      = node.StakeAnswer
	validatorsAnswer = node.ValidatorsAnswer
	drawsAnswer      = node.DrawsAnswer
	groupAnswer      = node.GroupAnswer
	recoverAnswer    = node.RecoverAnswer
	proverAnswer     = node.ProverAnswer

	proverFilesAnswer = node.ProverFilesAnswer
	peersAnswer       = node.PeersAnswer
	fetchesAnswer     = node.FetchesAnswer
	servingAnswer     = node.ServingAnswer
	fetchAnswer       = node.FetchAnswer
	rankAnswer        = node.RankAnswer
	checkAnswer       = node.CheckAnswer
	supplyAnswer      = node.SupplyAnswer
	collateralAnswer  = node.CollateralAnswer
	historyAnswer     = node.HistoryAnswer
	limitAnswer       = node.LimitAnswer
	payoutsAnswer     = node.PayoutsAnswer
	eraAnswer         = node.EraAnswer
	creditAnswer      = node.CreditAnswer
	tabsAnswer        = node.TabsAnswer
	receiptsAnswer    = node.ReceiptsAnswer
	claimsAnswer      = node.ClaimsAnswer

	proposalsAnswer   = node.ProposalsAnswer
	proposalAnswer    = node.ProposalAnswer
	namedParamsAnswer = node.NamedParamsAnswer
	protocolAnswer    = node.ProtocolAnswer
	enclavesAnswer    = node.EnclavesAnswer
)
