package gateway

import (
	"html/template"
	"net/http"
)

// page is the first page: plain HTML, no script, nothing from elsewhere.
var page = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Lode gateway</title></head><body>
<h1>Lode gateway</h1>
<p>This node serves content by its address: ask for <code>/ipfs/CID</code> or <code>/ipfs/CID/path/to/file</code>.
It reads from the chain who has proved to hold the file, asks the best of them directly, and checks every block
before it passes it on.</p>
{{if .Simulated}}<p><strong>Simulated:</strong> the storage nodes of this network run simulated enclaves. Their proofs
prove nothing; this is a network for development.</p>{{end}}
<ul>
{{if not .TrustlessOnly}}<li>files and directories: <code>/ipfs/CID/path</code>, with byte ranges</li>
{{end}}<li>one block, to check yourself: <code>/ipfs/CID?format=raw</code></li>
<li>a DAG, to check yourself: <code>/ipfs/CID?format=car</code></li>
</ul>
<p>What cannot be fetched ends in a 504 with a reason after {{.Deadline}} without a byte.
Responses say in <code>Lode-Holders</code> who must have the file, and in <code>Lode-Chain</code> by which height.</p>
{{with .Lines}}<ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`))

// index says what this is.
func (s *server) index(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this gateway is read only", http.StatusMethodNotAllowed)
		return
	}
	var lines []string
	if s.c.Status != nil {
		lines = s.c.Status()
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	// A reader who left is the only error here, and nobody is there to be told.
	_ = page.Execute(w, map[string]any{
		"Simulated": s.c.Simulated, "TrustlessOnly": s.c.TrustlessOnly, "Deadline": s.c.Deadline, "Lines": lines,
	})
}
