<?php

// app/Console/Commands/ReadRelay.php: a Laravel application reads the relay's stream in Redis or Valkey (7 or later).
//
//     php artisan relay:read 1
//
// It needs phpredis 6 and, in config/database.php, a connection without a prefix, because the relay's keys have none:
//
//     'redis' => [
//         'relay' => ['url' => env('RELAY_URL'), 'database' => '0', 'options' => ['prefix' => '']],
//
// Each process needs its own number. After SIGTERM, a process finishes its entries (at most ten) and ends.

namespace App\Console\Commands;

use Illuminate\Console\Command;
use Illuminate\Support\Facades\Redis;
use Throwable;

class ReadRelay extends Command
{
    protected $signature = 'relay:read {consumer} {--stream=reverb} {--group=laravel}';

    protected $description = 'Read the events that the relay has written';

    private const STUCK = 60_000; // milliseconds; more than any entry takes

    public function handle(): int
    {
        $isEnding = false;
        $this->trap([SIGTERM, SIGINT], function () use (&$isEnding) {
            $isEnding = true;
        });
        [$stream, $group, $consumer] = [$this->option('stream'), $this->option('group'), $this->argument('consumer')];
        $redis = Redis::connection('relay')->client();
        $redis->xGroup('CREATE', $stream, $group, '0', true); // false if it exists
        $start = '0'; // '0': entries that this consumer got and did not finish; '>': entries that nobody got yet
        $nextLook = 0;
        while (! $isEnding) {
            if (microtime(true) >= $nextLook) { // entries that others got and did not finish for a minute
                [, $claimed, $trimmed] = $redis->xAutoClaim($stream, $group, $consumer, self::STUCK, '0-0', 100);
                if ($trimmed) {
                    $this->readAll('entries were trimmed before they were done');
                }
                $start = $claimed ? '0' : $start;
                $nextLook = microtime(true) + 30;
            }
            $answer = $redis->xReadGroup($group, $consumer, [$stream => $start], $start === '0' ? 1 : 10, 1000);
            $entries = $answer[$stream] ?? [];
            $start = $start === '0' && $entries ? '0' : '>';
            foreach ($entries as $id => $entry) {
                try {
                    $this->take($entry);
                } catch (Throwable $error) {
                    report($error);
                    $start = '0'; // this entry again, before the next ones
                    sleep(1);
                    break;
                }
                $redis->xAck($stream, $group, [$id]);
            }
        }

        return self::SUCCESS;
    }

    /** Your work. It may be called with the same entry twice. */
    private function take(array $entry): void
    {
        match ($entry['event'] ?? 'reverb:gap') {
            'reverb:gap' => $this->readAll($entry['data'] ?? 'an entry was trimmed before it was done'),
            'order.changed' => $this->change(json_decode($entry['data'], true, flags: JSON_THROW_ON_ERROR)),
            default => null,
        };
    }

    /** Change the order if $order['version'] is newer than the stored version. */
    private function change(array $order): void
    {
        $this->info("order {$order['id']}: {$order['status']}");
    }

    /** Entries may be missing: read all orders from the database that has them. */
    private function readAll(string $gap): void
    {
        $this->warn("entries may be missing ($gap), reading all orders");
    }
}
