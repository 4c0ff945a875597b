# The functions in Ruby with a minimal runtime. `n` of the event is the amount of work.
require "csv"
require "digest"
require "erb"
require "json"
require "net/http"
require "openssl"
require "set"
require "zlib"

ROWS = Array.new(3_000) { |i| { "id" => i, "name" => "customer #{i}", "total" => i * 7919 % 900 } }
TEXT = ROWS.map { |row| "#{row["id"]} GET /item/#{row["name"]} #{row["total"]}\n" }.join
CSV_TEXT = "id,name,total\n" + ROWS.map { |row| row.values.join(",") }.join("\n")
PAGE = ERB.new("<table><% rows.each do |row| %><tr><td><%= row['id'] %></td><td><%= ERB::Util.html_escape(row['name']) %></td></tr><% end %></table>")

def fetch(delay_ms)
  Net::HTTP.get(URI("http://#{ENV["SERVER"]}/#{delay_ms}"))
end

def derive(n)
  OpenSSL::PKCS5.pbkdf2_hmac("key", "salt", n, 32, "sha256")
end

def routes(n)
  best = Array.new(n * n, 1 << 30)
  best[0] = 0
  queue = [0]
  until queue.empty?
    node = queue.shift
    [node + 1, node + n, node - n].each do |other|
      cost = best[node] + other * 31 % 9 + 1
      next unless other.between?(0, n * n - 1) && cost < best[other]
      best[other] = cost
      queue << other
    end
  end
  best.last
end

WORKLOADS = {
  "json" => ->(e) { JSON.generate(JSON.parse(JSON.generate(ROWS.first(e["n"]))).sort_by { |row| row["total"] }).size },
  "csv" => ->(e) { e["n"].times.sum { CSV.parse(CSV_TEXT, headers: true).sum { |row| row["total"].to_i } } },
  "page" => ->(e) { rows = ROWS.first(e["n"]); PAGE.result(binding).size },
  "hash" => ->(e) { e["n"].times.map { |i| Digest::SHA256.hexdigest(TEXT + i.to_s) }.last },
  "compress" => ->(e) { Zlib::Deflate.deflate(TEXT * e["n"]).size },
  "routes" => ->(e) { routes(e["n"]) },
  "authorise" => ->(e) { e["n"].times.map { OpenSSL::HMAC.hexdigest("SHA256", "secret", "header.body") }.last },
  "allocate" => ->(e) { Array.new(e["n"]) { |i| { id: i, name: "row-#{i}" } }.map { |row| row[:name] }.to_set.size },
  "apiThenWork" => ->(e) { fetch(e["delay_ms"]).size + JSON.generate(ROWS.first(e["n"])).size },
  "fanOut" => ->(e) { Array.new(e["n"]) { Thread.new { fetch(e["delay_ms"]).bytes.to_json.size } }.sum(&:value) },
  "endedThreads" => ->(e) { Array.new(3) { Thread.new { derive(e["n"]) } }.sum { |thread| thread.value.size } },
  "child" => ->(e) { IO.popen(%w[gzip -6], "r+b") { |io| writer = Thread.new { io.write(TEXT * e["n"]); io.close_write }; out = io.read; writer.join; out.size } },
  "writeFiles" => ->(e) { e["n"].times { |i| File.open("/tmp/part-#{i}", "wb") { |file| 10.times { file.write(TEXT) }; file.fsync } } },
}.freeze

host, port = ENV["AWS_LAMBDA_RUNTIME_API"].split(":")
work = WORKLOADS.fetch(ENV["WORKLOAD"])
Net::HTTP.start(host, port.to_i, read_timeout: nil) do |api|
  loop do
    answer = api.get("/2018-06-01/runtime/invocation/next")
    path = "/2018-06-01/runtime/invocation/#{answer["Lambda-Runtime-Aws-Request-Id"]}"
    begin
      body, path = { result: work.call(JSON.parse(answer.body)) }, "#{path}/response"
    rescue StandardError => error
      body, path = { errorMessage: error.message, errorType: error.class.name }, "#{path}/error"
    end
    api.post(path, JSON.generate(body), "Content-Type" => "application/json")
  end
end
