// Package market holds the rules of the storage market: orders, their money and who is paid (spec §5).
package market

// A Msg is what this treaty asks of the chain.
type Msg struct{}

// Params are the constants of this treaty.
type Params struct{}
