// A handler and a minimal runtime, which fetches each event from the Runtime API and posts the response.
//
// WORKLOAD selects the work; the default is CPU work on four goroutines.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

const rounds = 60

// hash is the work of one goroutine.
func hash() [32]byte {
	block := make([]byte, 64*1024)
	var sum [32]byte
	for range rounds {
		sum = sha256.Sum256(block)
		copy(block, sum[:])
	}
	return sum
}

// parallel runs hash on this number of goroutines.
func parallel(workers int) [32]byte {
	var group sync.WaitGroup
	sums := make([][32]byte, workers)
	for worker := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			sums[worker] = hash()
		}()
	}
	group.Wait()
	return sums[0]
}

// wait sends a request to a server that delays its response by 40 ms.
func wait() error {
	answer, err := http.Get("http://" + os.Getenv("SERVER") + "/40")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func handle(workload string) string {
	var sum [32]byte
	switch workload {
	case "single":
		sum = parallel(1)
	case "mixed":
		if err := wait(); err != nil {
			log.Fatal("the request to the server failed: ", err)
		}
		sum = parallel(2)
	case "profile":
		if err := profiled("parallel", func() { sum = parallel(4) }); err != nil {
			log.Fatal("writing the profile failed: ", err)
		}
	default:
		sum = parallel(4)
	}
	return fmt.Sprintf(`{"sum":"%x"}`, sum[:4])
}

func main() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	workload := os.Getenv("WORKLOAD")
	for {
		next, err := http.Get(api + "next")
		if err != nil {
			log.Fatal("fetching the next event failed: ", err)
		}
		io.Copy(io.Discard, next.Body)
		next.Body.Close()
		id := next.Header.Get("Lambda-Runtime-Aws-Request-Id")
		answer, err := http.Post(api+id+"/response", "application/json", bytes.NewBufferString(handle(workload)))
		if err != nil {
			log.Fatal("posting the response failed: ", err)
		}
		answer.Body.Close()
	}
}
