<?php
// The functions in PHP with a minimal runtime. `n` of the event is the amount of work.
$rows = [];
for ($i = 0; $i < 3000; $i++) {
    $rows[] = ['id' => $i, 'name' => "customer $i", 'total' => $i * 7919 % 900];
}
$text = implode('', array_map(fn($row) => "{$row['id']} GET /item/{$row['name']} {$row['total']}\n", $rows));

function http(string $method, string $url, string $body = ''): array
{
    $options = ['method' => $method, 'content' => $body, 'timeout' => 86400, 'header' => 'Content-Type: application/json', 'ignore_errors' => true];
    $content = file_get_contents($url, false, stream_context_create(['http' => $options]));
    return [$content, $http_response_header];
}

function routes(int $n): int
{
    $best = array_fill(0, $n * $n, 1 << 30);
    $best[0] = 0;
    $queue = new SplQueue();
    $queue->enqueue(0);
    while (!$queue->isEmpty()) {
        $node = $queue->dequeue();
        foreach ([$node + 1, $node + $n, $node - $n] as $other) {
            $cost = $best[$node] + abs($other * 31) % 9 + 1;
            if ($other >= 0 && $other < $n * $n && $cost < $best[$other]) {
                $best[$other] = $cost;
                $queue->enqueue($other);
            }
        }
    }
    return $best[$n * $n - 1];
}

$workloads = [
    'json' => fn($e) => strlen(json_encode(json_decode(json_encode(array_slice($rows, 0, $e['n'])), true))),
    'page' => fn($e) => strlen(implode('', array_map(fn($row) => '<tr><td>' . $row['id'] . '</td><td>' . htmlspecialchars($row['name']) . '</td></tr>', array_slice($rows, 0, $e['n'])))),
    'hash' => fn($e) => array_reduce(range(1, $e['n']), fn($last, $i) => hash('sha256', $text . $last), ''),
    'compress' => fn($e) => strlen(gzcompress(str_repeat($text, $e['n']))),
    'parse' => fn($e) => array_sum(array_map(fn($i) => preg_match_all('/^(\d+) (\w+) (\S+) (\S+) (\d+)$/m', $text), range(1, $e['n']))),
    'routes' => fn($e) => routes($e['n']),
    'authorise' => fn($e) => array_reduce(range(1, $e['n']), fn($last, $i) => hash_hmac('sha256', 'header.body', 'secret'), ''),
    'allocate' => fn($e) => count(array_unique(array_map(fn($i) => "row-" . ($i * 31 % 40009), range(1, $e['n'])))),
    'apiThenWork' => fn($e) => strlen(http('GET', 'http://' . getenv('SERVER') . '/' . $e['delay_ms'])[0]) + strlen(json_encode(array_slice($rows, 0, $e['n']))),
    'child' => function ($e) use ($text) {
        file_put_contents('/tmp/input', str_repeat($text, $e['n']));
        return strlen(shell_exec('gzip -6 -c /tmp/input'));
    },
    'writeFiles' => function ($e) use ($text) {
        for ($i = 0; $i < $e['n']; $i++) {
            $file = fopen("/tmp/part-$i", 'wb');
            fwrite($file, str_repeat($text, 10));
            fsync($file);
            fclose($file);
        }
        return $e['n'];
    },
];

$api = 'http://' . getenv('AWS_LAMBDA_RUNTIME_API') . '/2018-06-01/runtime/invocation';
$work = $workloads[getenv('WORKLOAD')];
while (true) {
    [$event, $headers] = http('GET', "$api/next");
    $id = '';
    foreach ($headers as $header) {
        if (stripos($header, 'Lambda-Runtime-Aws-Request-Id:') === 0) {
            $id = trim(substr($header, 30));
        }
    }
    try {
        http('POST', "$api/$id/response", json_encode(['result' => $work(json_decode($event, true))]));
    } catch (Throwable $error) {
        http('POST', "$api/$id/error", json_encode(['errorMessage' => $error->getMessage(), 'errorType' => get_class($error)]));
    }
}
