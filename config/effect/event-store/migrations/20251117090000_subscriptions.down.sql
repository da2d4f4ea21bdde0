DROP TABLE subscriptions;
DROP FUNCTION keep_subscription_forward();
