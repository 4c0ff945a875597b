// The functions in Go with a minimal runtime. `n` of the event is the amount of work.
package main

import (
	"bytes"
	"compress/gzip"
	"container/heap"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sort"
	"strings"
	"sync"
)

type event struct {
	N       int `json:"n"`
	DelayMs int `json:"delay_ms"`
}

type row struct {
	ID   int    `json:"id" xml:"id"`
	Name string `json:"name" xml:"name"`
}

var text = func() []byte {
	var out bytes.Buffer
	for i := range 3000 {
		fmt.Fprintf(&out, "%d GET /item/%d %d\n", i, i*37%9000, i%4)
	}
	return out.Bytes()
}()

func rows(n int) []row {
	all := make([]row, n)
	for i := range all {
		all[i] = row{i, fmt.Sprintf("row %d", i*31%7919)}
	}
	return all
}

func fetch(delayMs int) int {
	answer, err := http.Get(fmt.Sprintf("http://%s/%d", os.Getenv("SERVER"), delayMs))
	if err != nil {
		log.Fatal("the request to the server failed: ", err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return len(body)
}

func hash(n int) int {
	var sum [32]byte
	for range n {
		sum = sha256.Sum256(append(sum[:], text...))
	}
	return int(sum[0])
}

func together(count int, work func() int) int {
	var group sync.WaitGroup
	results := make([]int, count)
	for i := range count {
		group.Add(1)
		go func() { defer group.Done(); results[i] = work() }()
	}
	group.Wait()
	return results[0]
}

func jsonTransform(e event) int {
	packed, _ := json.Marshal(rows(e.N))
	var parsed []row
	json.Unmarshal(packed, &parsed)
	sort.Slice(parsed, func(a, b int) bool { return parsed[a].Name < parsed[b].Name })
	packed, _ = json.Marshal(parsed)
	return len(packed)
}

var page = template.Must(template.New("page").Parse(`<table>{{range .}}<tr><td>{{.ID}}</td><td>{{.Name}}</td></tr>{{end}}</table>`))

// thumbnail halves a picture and writes it as JPEG.
func thumbnail(e event) int {
	from := image.NewRGBA(image.Rect(0, 0, e.N, e.N))
	for i := range from.Pix {
		from.Pix[i] = byte(i * 7)
	}
	to := image.NewRGBA(image.Rect(0, 0, e.N/2, e.N/2))
	for y := range e.N / 2 {
		for x := range e.N / 2 {
			a, b := from.RGBAAt(2*x, 2*y), from.RGBAAt(2*x+1, 2*y+1)
			to.SetRGBA(x, y, color.RGBA{(a.R + b.R) / 2, (a.G + b.G) / 2, (a.B + b.B) / 2, 255})
		}
	}
	var out bytes.Buffer
	jpeg.Encode(&out, to, nil)
	return out.Len()
}

func compress(e event) int {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	for range e.N {
		writer.Write(text)
	}
	writer.Close()
	return out.Len()
}

func parseXML(e event) int {
	packed, _ := xml.Marshal(struct{ Row []row }{rows(e.N)})
	var parsed struct{ Row []row }
	xml.Unmarshal(packed, &parsed)
	return len(parsed.Row)
}

var line = regexp.MustCompile(`(?m)^(\d+) (\w+) (\S+) (\d)$`)

type node struct{ cost, at int }
type queue []node

func (q queue) Len() int           { return len(q) }
func (q queue) Less(a, b int) bool { return q[a].cost < q[b].cost }
func (q queue) Swap(a, b int)      { q[a], q[b] = q[b], q[a] }
func (q *queue) Push(one any)      { *q = append(*q, one.(node)) }
func (q *queue) Pop() any          { old := *q; one := old[len(old)-1]; *q = old[:len(old)-1]; return one }

// routes finds the shortest paths in a grid with weights.
func routes(e event) int {
	best := make([]int, e.N*e.N)
	for i := range best {
		best[i] = 1 << 30
	}
	best[0] = 0
	next := &queue{{0, 0}}
	for next.Len() > 0 {
		one := heap.Pop(next).(node)
		for _, other := range []int{one.at + 1, one.at + e.N, one.at - e.N} {
			if other >= 0 && other < len(best) && one.cost+1+other*31%9 < best[other] {
				best[other] = one.cost + 1 + other*31%9
				heap.Push(next, node{best[other], other})
			}
		}
	}
	return best[len(best)-1]
}

func authorise(e event) int {
	size := 0
	for range e.N {
		mac := hmac.New(sha256.New, []byte("secret"))
		mac.Write([]byte("header.body"))
		size += len(base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}
	return size
}

// allocate makes many objects, for the collector.
func allocate(e event) int {
	kept := map[string][]*row{}
	for i := range e.N {
		key := fmt.Sprintf("key %d", i%500)
		kept[key] = append(kept[key], &row{i, strings.Repeat("x", 40)})
	}
	return len(kept)
}

func writeFiles(e event) int {
	for i := range e.N {
		file, err := os.Create(fmt.Sprintf("/tmp/part-%d", i))
		if err != nil {
			log.Fatal("the file cannot be created: ", err)
		}
		for range 10 {
			file.Write(text)
		}
		file.Sync()
		file.Close()
	}
	return e.N
}

func child(e event) int {
	command := exec.Command("gzip", "-6")
	command.Stdin = bytes.NewReader(bytes.Repeat(text, e.N))
	out, err := command.Output()
	if err != nil {
		log.Fatal("gzip failed: ", err)
	}
	return len(out)
}

var workloads = map[string]func(event) int{
	"json":       jsonTransform,
	"page":       func(e event) int { var out bytes.Buffer; page.Execute(&out, rows(e.N)); return out.Len() },
	"thumbnail":  thumbnail,
	"compress":   compress,
	"xml":        parseXML,
	"regex":      func(e event) int { return len(line.FindAllString(strings.Repeat(string(text), e.N), -1)) },
	"routes":     routes,
	"hash":       func(e event) int { return hash(e.N) },
	"authorise":  authorise,
	"allocate":   allocate,
	"writeFiles": writeFiles,
	"child":      child,
	"parallel":   func(e event) int { return together(4, func() int { return hash(e.N) }) },
	"sequential": func(e event) int {
		return together(1, func() int { return hash(e.N) }) + together(1, func() int { return hash(e.N) })
	},
	"fanOut":      func(e event) int { return together(e.N, func() int { return fetch(e.DelayMs) + hash(5) }) },
	"apiThenWork": func(e event) int { return fetch(e.DelayMs) + jsonTransform(e) },
	"chatty": func(e event) int {
		size := 0
		for range e.N {
			size += fetch(1) + hash(3)
		}
		return size
	},
}

func main() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	work := workloads[os.Getenv("WORKLOAD")]
	for {
		next, err := http.Get(api + "next")
		if err != nil {
			log.Fatal("fetching the next event failed: ", err)
		}
		var e event
		json.NewDecoder(next.Body).Decode(&e)
		next.Body.Close()
		id := next.Header.Get("Lambda-Runtime-Aws-Request-Id")
		answer, err := http.Post(api+id+"/response", "application/json", strings.NewReader(fmt.Sprintf(`{"result":%d}`, work(e))))
		if err != nil {
			log.Fatal("posting the response failed: ", err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
}
