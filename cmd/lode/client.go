package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// A client asks one node over its admin API.
type client struct {
	base  string // URL without a slash at the end
	where string // for people: the socket or URL
	token string
	hc    *http.Client
	hint  string // the command that starts a node there; empty if that is not known
}

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 64 << 20

// homeDir returns the home in use.
func (c *cli) homeDir() (string, error) { return node.HomeDir(c.home) }

// client returns the client for --node, or for the node of --home. It dials nothing yet.
func (c *cli) client() (*client, error) {
	home, err := c.homeDir()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(c.node, "http://") || strings.HasPrefix(c.node, "https://") {
		cl := &client{base: strings.TrimRight(c.node, "/"), where: c.node, hc: &http.Client{}, token: os.Getenv("LODE_API_TOKEN"), hint: "lode start"}
		if cl.token == "" {
			if b, err := os.ReadFile(filepath.Join(home, "api.token")); err == nil {
				cl.token = strings.TrimSpace(string(b))
			}
		}
		return cl, nil
	}
	socket := c.node
	if socket == "" {
		socket = filepath.Join(home, "api.sock")
	} else if info, err := os.Stat(socket); err == nil && info.IsDir() {
		socket = filepath.Join(socket, "api.sock")
	}
	return socketClient(socket), nil
}

// socketClient returns the client of the node that listens on the Unix socket.
func socketClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	cl := &client{base: "http://node", where: socket, hc: &http.Client{Transport: &http.Transport{DialContext: dial}}}
	if filepath.Base(socket) == "api.sock" { // else it is no home's, such as HOST:PORT without http://
		cl.hint = "lode start --home " + filepath.Dir(socket)
	}
	return cl
}

// get asks path, like "/status", and reads the answer into v.
func (cl *client) get(ctx context.Context, path string, v any) error {
	return cl.do(ctx, http.MethodGet, path, "", nil, v)
}

// post sends body and reads the answer into v, which may be nil.
func (cl *client) post(ctx context.Context, path, kind string, body []byte, v any) error {
	return cl.do(ctx, http.MethodPost, path, kind, body, v)
}

func (cl *client) do(ctx context.Context, method, path, kind string, body []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, cl.base+"/lode/v1"+path, bytes.NewReader(body))
	if err != nil {
		return usage("--node %s: %v", cl.where, err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if cl.token != "" {
		req.Header.Set("Authorization", "Bearer "+cl.token)
	}
	resp, err := cl.hc.Do(req)
	if err != nil {
		return cl.unreached(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s to %s: %w", cl.where, path, err)
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("the answer of %s to %s is longer than %d MiB: ask for less, such as one account or one CID", cl.where, path, maxAnswer>>20)
	}
	if resp.StatusCode != http.StatusOK {
		return cl.refusal(resp.StatusCode, path, data)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("answer of %s to %s: %w", cl.where, path, err)
	}
	return nil
}

// unreached says that there is no node, and how to get one; what else can go wrong on the way is told as it is.
func (cl *client) unreached(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		if cl.hint == "" {
			return &coded{exitNoNode, fmt.Errorf("no node is running at %s: name another with --node, HOME/api.sock or http://HOST:PORT", cl.where)}
		}
		return &coded{exitNoNode, fmt.Errorf("no node is running at %s: start one with `%s`, or name another with --node", cl.where, cl.hint)}
	}
	return fmt.Errorf("ask the node at %s: %w", cl.where, err)
}

// refusal turns an answer that is no 200 into the error that it tells of.
func (cl *client) refusal(status int, path string, data []byte) error {
	var e struct {
		Error string `json:"error"`
		Code  uint32 `json:"code"`
	}
	if err := json.Unmarshal(data, &e); err != nil || e.Error == "" {
		said := strings.TrimSpace(strings.ToValidUTF8(string(data[:min(len(data), 200)]), ""))
		e.Error = fmt.Sprintf("the node at %s answers %s with status %d, not as a node does: is --node right? It says: %s", cl.where, path, status, said)
	}
	switch {
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%s (the token is in api.token of the node's home; set LODE_API_TOKEN)", e.Error)
	case status == http.StatusNotFound:
		return notFound("%s", e.Error)
	case status == http.StatusGatewayTimeout:
		return &coded{exitTimeout, errors.New(e.Error)}
	case e.Code != chain.CodeOK && e.Code <= chain.CodeTaken:
		return &chain.Error{Code: e.Code, Text: e.Error}
	}
	return errors.New(e.Error)
}
