// The same operations as the handlers in other languages: echo, fail, sleep, use memory.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

var invocations int

type event struct {
	Do      string `json:"do"`
	Seconds int    `json:"seconds"`
	MB      int    `json:"mb"`
}

func handler(ctx context.Context, e event) (any, error) {
	invocations++
	switch e.Do {
	case "fail":
		return nil, errors.New("boom")
	case "sleep":
		time.Sleep(time.Duration(e.Seconds) * time.Second)
	case "memory":
		held := make([]byte, e.MB<<20)
		for i := range held {
			held[i] = 1
		}
		return len(held), nil
	}
	c, _ := lambdacontext.FromContext(ctx)
	return map[string]any{
		"invocations": invocations,
		"request_id":  c.AwsRequestID,
		"memory_mb":   lambdacontext.MemoryLimitInMB,
	}, nil
}

func main() {
	lambda.Start(handler)
}
